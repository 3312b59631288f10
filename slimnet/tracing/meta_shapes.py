"""What ops return on meta tensors, by simple rules.

torch's own rules for meta tensors are written in Python, and cost up to a hundred times what these do. A rule takes
an op's arguments and returns its output, or None for cases it does not cover: those go to torch. Rules cover
contiguous tensors of one floating type, whose outputs are contiguous too, so that strides are right as well.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import zip_longest
from typing import Any

import torch

from slimnet.tracing.op_call import ShapeRule

META = torch.device("meta")


def run(func: Any, rule: ShapeRule | None, args: tuple, kwargs: dict) -> Any:
    """The output of an op on meta tensors, by its rule where it has one."""
    out = None if rule is None else rule(*args, **kwargs)
    return func(*args, **kwargs) if out is None else out


def new(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """A contiguous meta tensor of a shape, and of another's type."""
    return torch.empty(shape, dtype=like.dtype, device=META)


@cache
def nothing(dtype: torch.dtype) -> torch.Tensor:
    """An empty tensor, for outputs that are not read."""
    return torch.empty(0, dtype=dtype, device=META)


def alike(*tensors: Any) -> bool:
    """Whether these are contiguous tensors of one floating type, with at least one axis."""
    dtype = tensors[0].dtype
    for tensor in tensors:
        fits = isinstance(tensor, torch.Tensor) and tensor.dtype is dtype and tensor.ndim > 0 and tensor.is_contiguous()
        if not fits:
            return False
    return dtype.is_floating_point


def same_shape(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor | None:
    """Activations: shaped as their input."""
    return new(x.shape, x) if alike(x) else None


def broadcast(x: Any, other: Any, **kwargs: Any) -> torch.Tensor | None:
    """Sums, products and quotients of two tensors, or of a tensor and a number.

    Raises:
        RuntimeError: the shapes do not fit.
    """
    if not isinstance(x, torch.Tensor) or not x.dtype.is_floating_point or "rounding_mode" in kwargs:
        return None
    if isinstance(other, int | float):
        return new(x.shape, x) if alike(x) else None
    if not alike(x, other):
        return None
    return new(x.shape if x.shape == other.shape else broadcast_shape(x.shape, other.shape), x)


def broadcast_shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that several shapes broadcast to.

    Raises:
        RuntimeError: they do not fit together.
    """
    result = []
    for sizes in zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1):
        wide = {size for size in sizes if size != 1} or {1}
        if len(wide) > 1:
            raise RuntimeError(f"tensors of shapes {[tuple(shape) for shape in shapes]} do not fit together")
        result.append(wide.pop())
    return tuple(result[::-1])


def convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """Any convolution of `(N, C, ...)`.

    Raises:
        RuntimeError: the layer does not fit its input.
    """
    shape, (rows, columns, *kernel) = x.shape, weight.shape
    expected, channels = (rows, columns * groups) if transposed else (columns * groups, rows)
    if len(shape) != len(kernel) + 2 or shape[1] != expected or rows % groups:
        raise RuntimeError(f"a convolution of {expected} channels was given {tuple(shape)}")
    if x.dtype != weight.dtype:
        raise RuntimeError(f"a convolution in {weight.dtype} was given {x.dtype}")
    if bias is not None and tuple(bias.shape) != (channels,):
        raise RuntimeError(f"a convolution to {channels} channels has a bias of shape {tuple(bias.shape)}")
    sizes = []
    for axis, size in enumerate(kernel):
        reach = spread(dilation, axis) * (size - 1)
        room = shape[2 + axis] - 1
        if transposed:
            extra = spread(output_padding, axis) - 2 * spread(padding, axis)
            sizes.append(room * spread(stride, axis) + reach + 1 + extra)
        else:
            sizes.append((room + 2 * spread(padding, axis) - reach) // spread(stride, axis) + 1)
    if min(sizes, default=1) < 1:
        raise RuntimeError(f"a kernel of {tuple(kernel)} is larger than its input {tuple(shape)}")
    return new((shape[0], channels, *sizes), x)


def spread(values: Sequence[int], axis: int) -> int:
    """A per-axis setting, where one number may stand for all axes."""
    return values[axis] if len(values) > 1 else values[0]


def batch_norm(x: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, ...]:
    """BatchNorm: its input's shape, and statistics, which are not read.

    Raises:
        RuntimeError: it has another number of channels than its input.
    """
    shape, unused = x.shape, nothing(x.dtype)
    for tensor in rest[:4]:
        if isinstance(tensor, torch.Tensor) and tensor.shape[0] != shape[1]:
            raise RuntimeError(f"a BatchNorm of {tensor.shape[0]} channels was given {tuple(shape)}")
    return (new(shape, x) if x.is_contiguous() else torch.empty_like(x)), unused, unused


def reduction(
    x: torch.Tensor, dim: Sequence[int] | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> torch.Tensor | None:
    """mean and sum over some axes, or over all."""
    if dtype is not None or not alike(x):
        return None
    axes = {axis % x.ndim for axis in dim} if dim else set(range(x.ndim))
    kept = [1 if axis in axes else size for axis, size in enumerate(x.shape) if keepdim or axis not in axes]
    return new(kept, x)


def cat(tensors: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor | None:
    """cat of tensors that differ along one axis only; torch says what is wrong with others."""
    ndim = tensors[0].ndim
    if not alike(*tensors) or any(tensor.ndim != ndim for tensor in tensors) or not -ndim <= dim < ndim:
        return None
    shapes = [list(tensor.shape) for tensor in tensors]
    total = sum(shape.pop(dim) for shape in shapes)
    if any(shape != shapes[0] for shape in shapes):
        return None
    shapes[0].insert(dim % ndim, total)
    return new(shapes[0], tensors[0])


def addmm(
    bias: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *, beta: float = 1, alpha: float = 1
) -> torch.Tensor | None:
    """A linear layer with a bias `(O,)`."""
    if bias.dtype != x.dtype or bias.ndim != 1 or bias.shape[0] != weight.shape[-1]:
        return None
    return mm(x, weight)


def mm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor | None:
    """A product of two matrices."""
    if x.ndim != 2 or weight.ndim != 2 or x.dtype != weight.dtype or x.shape[1] != weight.shape[0]:
        return None
    return new((x.shape[0], weight.shape[1]), x)


def max_pool(
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Max-pooling over planes, and the positions of the largest values."""
    shape = pooled_shape(x, kernel_size, stride, padding, dilation, ceil_mode)
    return (new(shape, x), torch.empty(shape, dtype=torch.int64, device=META)) if shape else None


def average_pool(
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> torch.Tensor | None:
    """Average pooling over planes."""
    shape = pooled_shape(x, kernel_size, stride, padding, (1,), ceil_mode)
    return new(shape, x) if shape else None


def resized(x: torch.Tensor, output_size: Sequence[int] | None, *_: Any) -> torch.Tensor | None:
    """Planes of a given size, by interpolation or by adaptive pooling."""
    if output_size is None or not alike(x) or x.ndim != len(output_size) + 2:
        return None
    return new((*x.shape[:2], *output_size), x)


def pooled_shape(
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[int, ...] | None:
    """The shape of pooled planes `(N, C, H, W)`, None where the rule does not apply."""
    if x.ndim != 4 or not alike(x):
        return None
    sizes = []
    for axis in (0, 1):
        kernel, pad = spread(kernel_size, axis), spread(padding, axis)
        step = spread(stride or kernel_size, axis)
        room = x.shape[2 + axis] + 2 * pad - spread(dilation, axis) * (kernel - 1) - 1
        size = (math.ceil(room / step) if ceil_mode else room // step) + 1
        if ceil_mode and (size - 1) * step >= x.shape[2 + axis] + pad:
            size -= 1
        sizes.append(size)
        if room < 0 or 2 * pad > kernel:
            return None
    return (x.shape[0], x.shape[1], *sizes)
