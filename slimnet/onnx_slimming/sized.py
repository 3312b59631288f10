"""Nodes whose sizes are numbers in the file: reshapes, splits and resizes, which follow a narrower tensor.

Such a size may be a width. A narrower tensor does not fit it, so the size that follows is computed from the shapes of
the dense network; the retrace and the certificate tell whether that was right, and the file gets the new numbers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from slimnet.onnx_slimming.node_values import NotSupportedError, Value, at, integers, known, tensor
from slimnet.onnx_slimming.nodes import Node, NodeSource
from slimnet.onnx_slimming.operators.normalisation import OPSET

Shape = tuple[int, ...]


class Sizes(NamedTuple):
    """The sizes of one call: of the tensor, those given as numbers, and those of the result."""

    tensor: Shape
    given: tuple[int, ...]
    result: tuple[int, ...]


class SizedNode(Node):
    """A node with sizes of its own; with `fixed` they are taken as they are, so that a narrower tensor does not fit.

    `dense` are the sizes of the first call, that of the dense network, and `last` those of the last one.
    """

    def __init__(self, source: NodeSource, weights: Mapping[int, nn.Parameter], fixed: bool):
        super().__init__(source, weights)
        self.fixed = fixed
        self.dense: Sizes | None = None
        self.last: Sizes | None = None

    def is_known(self) -> bool:
        """Whether there is an equivalent for the operator."""
        return True

    def follows(self, given: torch.Tensor) -> Sizes | None:
        """The sizes of the dense network, if this tensor is narrower than there, and sizes may follow it."""
        if self.dense is None or self.fixed or tuple(given.shape) == self.dense.tensor:
            return None
        same_kind = given.ndim == len(self.dense.tensor) and given.shape[0] == self.dense.tensor[0]
        return self.dense if same_kind else None

    def note(self, given: torch.Tensor, sizes: Sequence[int], result: Sequence[int]) -> None:
        """Remember the sizes of this call."""
        self.last = Sizes(tuple(given.shape), tuple(sizes), tuple(result))
        self.dense = self.dense or self.last


class Reshape(SizedNode):
    """Reshape: the axis that was divided or joined follows a narrower tensor."""

    def compute(self, given: Sequence[Value]) -> torch.Tensor:
        """The tensor in its new shape."""
        x = tensor(given[0])
        numbers = self.source.settings.integers("shape", given[1:], 0)
        assert numbers is not None, "it is required"
        dense = self.follows(x)
        if dense is not None and tuple(numbers) == dense.given:
            target = narrowed(dense, tuple(x.shape))
        else:
            target = resolved(numbers, x, bool(self.source.settings.get("allowzero", 0)))
        self.note(x, numbers, target)
        return x.reshape(target)


def resolved(numbers: Sequence[int], x: torch.Tensor, zero_is_zero: bool) -> list[int]:
    """A target with the sizes that 0 (as before) and -1 (the rest) stand for."""
    target = [
        x.shape[axis] if size == 0 and not zero_is_zero and axis < x.ndim else size for axis, size in enumerate(numbers)
    ]
    if -1 in target:
        others = -math.prod(target)
        target[target.index(-1)] = x.numel() // others if others else 0
    return target


def narrowed(dense: Sizes, shape: Shape) -> list[int]:
    """The shape into which a narrower tensor goes, as one of the dense network's shape goes into that of its result.

    Raises:
        ValueError: no one axis follows.
    """
    target = list(dense.result)
    for before, after in blocks(dense.tensor, dense.result):
        old, new = (math.prod(sizes[axis] for axis in before) for sizes in (dense.tensor, shape))
        if old == new:
            continue
        # Of several axes the longest one that can: parts and heads are few, what is in each of them is wide.
        able = [axis for axis in after if target[axis] > 1 and new * target[axis] % old == 0]
        if not able:
            raise ValueError(f"the shape {tuple(dense.result)} does not follow a tensor {tuple(shape)}")
        axis = max(able, key=lambda axis: (target[axis], axis))
        target[axis] = new * target[axis] // old
    return target


def blocks(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Which axes of a shape become which of another one: the finest blocks with as many elements each."""
    found: list[tuple[list[int], list[int]]] = []
    left, right = 0, 0
    while left < len(before) and right < len(after):
        axes: tuple[list[int], list[int]] = ([left], [right])
        first, second = before[left], after[right]
        while first != second:
            if first < second:
                left += 1
                if left == len(before):
                    return found
                axes[0].append(left)
                first *= before[left]
            else:
                right += 1
                if right == len(after):
                    return found
                axes[1].append(right)
                second *= after[right]
        found.append(axes)
        left, right = left + 1, right + 1
    return found


class Split(SizedNode):
    """Split: equal parts stay equal."""

    def compute(self, given: Sequence[Value]) -> Any:
        """The parts."""
        x, settings = tensor(given[0]), self.source.settings
        axis = settings.get("axis", 0) % x.ndim
        numbers = settings.integers("split", given[1:], 0)
        parts = len(self.source.outputs)
        width = x.shape[axis]
        if numbers is None:
            size = math.ceil(width / settings.get("num_outputs", parts))
            found = torch.split(x, size, axis)
            if len(found) != parts:
                raise ValueError(f"{width} channels do not make {parts} parts")
            self.note(x, (), ())
            return found if parts > 1 else found[0]
        sizes = list(numbers)
        if sum(sizes) != width and self.follows(x) is not None and len(set(sizes)) == 1 and width % parts == 0:
            sizes = [width // parts] * parts
        self.note(x, numbers, sizes)
        found = torch.split(x, sizes, axis)
        return found if parts > 1 else found[0]


class Resize(SizedNode):
    """Resize of planes; where the sizes are given, that of the channels is not looked at."""

    def compute(self, given: Sequence[Value]) -> torch.Tensor:
        """The planes in their new size."""
        x, settings = tensor(given[0]), self.source.settings
        if settings.get("axes") is not None or settings.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise NotSupportedError("axes of its own")
        scales, sizes = self.scales_and_sizes(x, given)
        mode = settings.get("mode", "nearest")
        where = settings.get("coordinate_transformation_mode", "half_pixel")
        rounding = settings.get("nearest_mode", "round_prefer_floor")
        if settings.get(OPSET, 13) < 11:
            where, rounding = "asymmetric", "floor"
        if mode == "nearest" and (where, rounding) in REPEATING:
            return nearest(x, scales, sizes)
        interpolation = {("linear", 3): "linear", ("linear", 4): "bilinear"}
        if (mode, x.ndim) not in interpolation or where not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
            raise NotSupportedError(f"mode {mode} with {where}")
        return functional.interpolate(
            x, sizes, mode=interpolation[mode, x.ndim], align_corners=where == "align_corners"
        )

    def scales_and_sizes(self, x: torch.Tensor, given: Sequence[Value]) -> tuple[list[float], list[int]]:
        """The factors of the spatial axes, and their new sizes."""
        numbers = at(given, 3)
        if numbers is not None and known(numbers).size:
            wanted = integers(numbers)
            result = [*x.shape[:2], *wanted[2:]]
            self.note(x, wanted, result)
            sizes = wanted[2:]
            return [new / old for new, old in zip(sizes, x.shape[2:], strict=True)], sizes
        place = 1 if len(given) < 3 else 2
        factors = [float(each) for each in known(at(given, place)).reshape(-1)]
        if len(factors) != x.ndim or factors[:2] != [1, 1]:
            raise NotSupportedError("a change of batch or channels")
        self.note(x, (), ())
        return factors[2:], [math.floor(n * f) for n, f in zip(x.shape[2:], factors[2:], strict=True)]


REPEATING = {
    ("asymmetric", "floor"),
    *((where, f"round_prefer_{way}") for where in ("half_pixel", "pytorch_half_pixel") for way in ("floor", "ceil")),
}
"""Coordinates and roundings that repeat each pixel, where the factor is a whole number."""


def nearest(x: torch.Tensor, scales: Sequence[float], sizes: list[int]) -> torch.Tensor:
    """Each pixel repeated a whole number of times."""
    if any(scale != int(scale) for scale in scales):
        raise NotSupportedError("a factor that is not a whole number")
    return functional.interpolate(x, sizes, mode="nearest")


SIZED_NODES: dict[str, type[SizedNode]] = {"Reshape": Reshape, "Split": Split, "Resize": Resize, "Upsample": Resize}


def changed(dense: Sizes, last: Sizes) -> np.ndarray | None:
    """The numbers of a node with the sizes that the slim network needs; None if they are those that there are.

    0 and -1 stay: they follow by themselves.
    """
    numbers = list(last.given)
    for axis, (before, after) in enumerate(zip(dense.result, last.result, strict=True)):
        if before != after and numbers[axis] == before:
            numbers[axis] = after
    return None if numbers == list(last.given) else np.array(numbers, dtype=np.int64)
