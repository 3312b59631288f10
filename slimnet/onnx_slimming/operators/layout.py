"""Operators that move elements, or join and divide tensors; those with sizes of their own are in `sized.py`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from slimnet.onnx_slimming.node_values import NotSupportedError, Settings, Value, at, integers, known, number, tensor

Operator = Callable[..., Any]


def shape(settings: Settings, x: Value) -> np.ndarray:
    """Shape: as numbers that are known, so that they follow a narrower tensor."""
    assert x is not None, "it has an input"
    sizes = np.array(tuple(x.shape), dtype=np.int64)
    return sizes[settings.get("start", 0) : settings.get("end", len(sizes))]


def size(settings: Settings, x: Value) -> np.ndarray:
    """Size: the number of elements."""
    return np.array(int(np.prod(shape(Settings({}, 1), x))), dtype=np.int64)


def flatten(settings: Settings, x: Value) -> torch.Tensor:
    """Flatten: to a matrix."""
    given = tensor(x)
    axis = settings.get("axis", 1)
    axis = axis + given.ndim if axis < 0 else axis
    if axis == 1 and given.ndim > 1:
        return torch.flatten(given, 1)
    rows = int(np.prod(given.shape[:axis]))
    return given.reshape(rows, int(np.prod(given.shape[axis:])))


def transpose(settings: Settings, x: Value) -> torch.Tensor:
    """Transpose."""
    given = tensor(x)
    return given.permute(settings.get("perm", list(range(given.ndim))[::-1]))


def squeeze(settings: Settings, x: Value, *rest: Value) -> torch.Tensor:
    """Squeeze: the given axes of size 1, or all of them."""
    given = tensor(x)
    axes = settings.integers("axes", rest, 0)
    axes = [axis for axis in range(given.ndim) if given.shape[axis] == 1] if axes is None else axes
    for axis in sorted({axis % given.ndim for axis in axes}, reverse=True):
        if given.shape[axis] != 1:
            raise ValueError(f"axis {axis} of {tuple(given.shape)} is not of size 1")
        given = given.squeeze(axis)
    return given


def unsqueeze(settings: Settings, x: Value, *rest: Value) -> torch.Tensor:
    """Unsqueeze: new axes of size 1."""
    given = tensor(x)
    axes = settings.integers("axes", rest, 0) or []
    rank = given.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        given = given.unsqueeze(axis)
    return given


def concatenate(settings: Settings, *values: Value) -> torch.Tensor:
    """Concat."""
    return torch.cat([tensor(value) for value in values], settings.get("axis"))


def take_slices(settings: Settings, x: Value, *bounds: Value) -> torch.Tensor:
    """Slice: with positive steps."""
    given = tensor(x)
    starts, ends = settings.integers("starts", bounds, 0), settings.integers("ends", bounds, 1)
    assert starts is not None, "it is required"
    assert ends is not None, "it is required"
    axes = settings.integers("axes", bounds, 2) or list(range(len(starts)))
    steps = integers(at(bounds, 3)) if at(bounds, 3) is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise NotSupportedError("a step backwards")
        given = torch.ops.aten.slice(given, axis, start, None if end >= given.shape[axis] else end, step)
    return given


def expand(settings: Settings, x: Value, sizes: Value) -> torch.Tensor:
    """Expand: both shapes broadcast."""
    given = tensor(x)
    target = torch.broadcast_shapes(given.shape, tuple(integers(sizes)))
    return given.expand(target)


def tile(settings: Settings, x: Value, repeats: Value) -> torch.Tensor:
    """Tile."""
    return tensor(x).repeat(integers(repeats))


def gather(settings: Settings, x: Value, indices: Value) -> torch.Tensor:
    """Gather: positions of one axis."""
    given, axis = tensor(x), settings.get("axis", 0)
    axis = axis % given.ndim
    if not isinstance(indices, np.ndarray):
        taken: torch.Tensor = given[(*[slice(None)] * axis, tensor(indices))]  # type: ignore[index]
        return taken
    if indices.ndim == 0:
        return given.select(axis, int(indices))
    index = torch.from_numpy(indices.astype(np.int64).reshape(-1) % given.shape[axis])
    found = given.index_select(axis, index)
    return found if indices.ndim == 1 else found.unflatten(axis, indices.shape)


MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def pad(settings: Settings, x: Value, *rest: Value) -> torch.Tensor:
    """Pad."""
    given = tensor(x)
    amounts = settings.integers("pads", rest, 0)
    assert amounts is not None, "it is required"
    axes = integers(at(rest, 2)) if at(rest, 2) is not None else list(range(given.ndim))
    value = number(at(rest, 1), settings.get("value", 0.0))
    around = [(0, 0)] * given.ndim
    for place, axis in enumerate(axes):
        around[axis] = (amounts[place], amounts[place + len(axes)])
    mode = MODES[settings.get("mode", "constant")]
    if mode == "constant":
        return functional.pad(given, [each for pair in reversed(around) for each in pair], value=value)
    if given.ndim < 3 or any(any(pair) for pair in around[:2]):
        raise NotSupportedError(f"mode {mode} along these axes")
    return functional.pad(given, [each for pair in reversed(around[2:]) for each in pair], mode=mode)


def depth_to_space(settings: Settings, x: Value) -> torch.Tensor:
    """DepthToSpace, as a pixel shuffle."""
    if settings.get("mode", "DCR") != "CRD":
        given, block = tensor(x), settings.get("blocksize")
        batch, channels, height, width = given.shape
        parts = given.reshape(batch, block, block, channels // block**2, height, width)
        return parts.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // block**2, height * block, width * block)
    return functional.pixel_shuffle(tensor(x), settings.get("blocksize"))


def space_to_depth(settings: Settings, x: Value) -> torch.Tensor:
    """SpaceToDepth: blocks of a plane become channels, position by position."""
    given, block = tensor(x), settings.get("blocksize")
    batch, channels, height, width = given.shape
    parts = given.reshape(batch, channels, height // block, block, width // block, block)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(batch, channels * block**2, height // block, width // block)


def arg_max(settings: Settings, x: Value) -> torch.Tensor:
    """ArgMax."""
    if settings.get("select_last_index", 0):
        raise NotSupportedError("the last of several positions")
    return torch.argmax(tensor(x), settings.get("axis", 0), bool(settings.get("keepdims", 1)))


def constant_of_shape(settings: Settings, sizes: Value) -> torch.Tensor:
    """ConstantOfShape."""
    value = settings.get("value")
    filled = np.zeros(1, dtype=np.float32) if value is None else np.asarray(value)
    target = integers(sizes)
    return torch.from_numpy(filled.reshape(-1)).expand(int(np.prod(target))).reshape(target).clone()


def einsum(settings: Settings, *values: Value) -> torch.Tensor:
    """Einsum."""
    return torch.einsum(settings.get("equation"), *[tensor(value) for value in values])


def range_of(settings: Settings, start: Value, limit: Value, step: Value) -> np.ndarray:
    """Range: numbers that are known."""
    first, last, by = (known(each).reshape(-1)[0] for each in (start, limit, step))
    return np.arange(first, last, by, dtype=known(start).dtype)


LAYOUT: dict[str, Operator] = {
    "Shape": shape,
    "Size": size,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concatenate,
    "Slice": take_slices,
    "Expand": expand,
    "Tile": tile,
    "Gather": gather,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "ArgMax": arg_max,
    "ConstantOfShape": constant_of_shape,
    "Einsum": einsum,
    "Range": range_of,
}
