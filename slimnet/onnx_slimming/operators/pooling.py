"""Operators over planes and over axes: pooling, reductions, and convolutions whose weights are no constants."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from slimnet.onnx_slimming.node_values import NotSupportedError, Settings, Value, tensor

Operator = Callable[..., Any]

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
MAX_POOLS = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
AVERAGE_POOLS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def padding_around(
    settings: Settings, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """The padding before and after each spatial axis of a window operator."""
    automatic = settings.get("auto_pad", "NOTSET")
    if automatic == "NOTSET":
        pads = settings.get("pads", [0] * 2 * len(kernel))
        return list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))
    if automatic == "VALID":
        return [(0, 0)] * len(kernel)
    found = []
    for size, taps, step, apart in zip(sizes, kernel, stride, dilation, strict=True):
        total = max(0, (math.ceil(size / step) - 1) * step + (taps - 1) * apart + 1 - size)
        less, more = total // 2, total - total // 2
        found.append((less, more) if automatic == "SAME_UPPER" else (more, less))
    return found


def framed(x: torch.Tensor, around: list[tuple[int, int]], value: float = 0.0) -> tuple[torch.Tensor, list[int]]:
    """A tensor padded where that is not the same on both sides, and the padding that is left to the operator."""
    if all(before == after for before, after in around):
        return x, [before for before, _ in around]
    return functional.pad(x, [each for pair in reversed(around) for each in pair], value=value), [0] * len(around)


def window(settings: Settings, rank: int) -> tuple[list[int], list[int], list[int]]:
    """Kernel, stride and dilation of a pooling operator."""
    kernel = list(settings.get("kernel_shape"))
    return kernel, list(settings.get("strides", [1] * rank)), list(settings.get("dilations", [1] * rank))


def max_pool(settings: Settings, x: Value) -> torch.Tensor:
    """MaxPool, without the positions."""
    given = tensor(x)
    if settings.outputs > 1 or settings.get("storage_order", 0):
        raise NotSupportedError("the positions of the largest values")
    rank = given.ndim - 2
    kernel, stride, dilation = window(settings, rank)
    around = padding_around(settings, given.shape[2:], kernel, stride, dilation)
    if any(2 * before > taps for (before, _), taps in zip(around, kernel, strict=True)):
        raise NotSupportedError("a padding of more than half the window")
    ceil = bool(settings.get("ceil_mode", 0))
    if not ceil and ends_in_padding(given.shape[2:], around, kernel, stride, dilation):
        around, ceil = [(0, 0)] * rank, True
    given, padding = framed(given, around, -math.inf)
    return MAX_POOLS[rank](given, kernel, stride, padding, dilation, ceil_mode=ceil)


def ends_in_padding(
    sizes: Sequence[int],
    around: list[tuple[int, int]],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> bool:
    """Whether windows that are padded behind the planes alone are those of a pooling whose last window is incomplete.

    Such a pooling leaves constants as they are, which a padding of its own would not.
    """
    for size, (before, after), taps, step, apart in zip(sizes, around, kernel, stride, dilation, strict=True):
        reach = (taps - 1) * apart + 1
        count = (size + after - reach) // step + 1
        if before or count != -((reach - size) // step) + 1 or (count - 1) * step >= size:
            return False
    return True


def average_pool(settings: Settings, x: Value) -> torch.Tensor:
    """AveragePool."""
    given = tensor(x)
    rank = given.ndim - 2
    kernel, stride, dilation = window(settings, rank)
    around = padding_around(settings, given.shape[2:], kernel, stride, dilation)
    with_padding = bool(settings.get("count_include_pad", 0))
    uneven = any(before != after for before, after in around)
    if any(apart != 1 for apart in dilation) or (uneven and not with_padding):
        raise NotSupportedError("this padding or dilation")
    given, padding = framed(given, around)
    ceil = bool(settings.get("ceil_mode", 0))
    return AVERAGE_POOLS[rank](given, kernel, stride, padding, ceil, with_padding)


def global_average(settings: Settings, x: Value) -> torch.Tensor:
    """GlobalAveragePool."""
    given = tensor(x)
    return given.mean(list(range(2, given.ndim)), keepdim=True)


def global_maximum(settings: Settings, x: Value) -> torch.Tensor:
    """GlobalMaxPool."""
    given = tensor(x)
    return given.amax(list(range(2, given.ndim)), keepdim=True)


def reduction(function: Callable[..., torch.Tensor]) -> Operator:
    """A reduction over axes, which are an attribute or an input; all of them where none is given."""

    def run(settings: Settings, x: Value, *rest: Value) -> torch.Tensor:
        given = tensor(x)
        axes = settings.integers("axes", rest, 0)
        if not axes:
            if settings.get("noop_with_empty_axes", 0):
                return given
            axes = list(range(given.ndim))
        return function(given, axes, bool(settings.get("keepdims", 1)))

    return run


def product(x: torch.Tensor, axes: list[int], keepdim: bool) -> torch.Tensor:
    """The product over axes, one after the other."""
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim)
    return x


def convolution(settings: Settings, x: Value, weight: Value, bias: Value = None) -> torch.Tensor:
    """Conv whose weight is computed."""
    given, kernel = tensor(x), tensor(weight)
    rank = kernel.ndim - 2
    stride, dilation = settings.get("strides", [1] * rank), settings.get("dilations", [1] * rank)
    around = padding_around(settings, given.shape[2:], kernel.shape[2:], stride, dilation)
    given, padding = framed(given, around)
    shift = None if bias is None else tensor(bias)
    return CONVOLUTIONS[rank](given, kernel, shift, stride, padding, dilation, settings.get("group", 1))


PLANES: dict[str, Operator] = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_maximum,
    "Conv": convolution,
    "ReduceMean": reduction(torch.mean),
    "ReduceSum": reduction(torch.sum),
    "ReduceMax": reduction(torch.amax),
    "ReduceMin": reduction(torch.amin),
    "ReduceProd": reduction(product),
    "ReduceL1": reduction(lambda x, axes, keepdim: x.abs().sum(axes, keepdim)),
    "ReduceL2": reduction(lambda x, axes, keepdim: x.square().sum(axes, keepdim).sqrt()),
    "ReduceSumSquare": reduction(lambda x, axes, keepdim: x.square().sum(axes, keepdim)),
    "ReduceLogSumExp": reduction(torch.logsumexp),
}
