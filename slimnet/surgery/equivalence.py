"""The distance between the outputs of two networks, or of two forms of one, with one definition everywhere."""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch

from slimnet.torch_state.precision import in_double

BATCHES = (1, 5)
"""The batch sizes at which forms are compared: one example, and a number that no network hard-codes."""

TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far outputs may be from the network's, relative to the largest one, where its type is a short one."""

TOLERANCE = 1e-4
"""The same for float32 and float64."""

PIECE = 1 << 15
"""How many values are compared at once."""


@dataclass(frozen=True)
class Distance:
    """How far values are from the expected ones.

    Equal infinities are equal, and so are two NaN at one place: where the expected network is not finite itself, there
    is nothing to measure, and `nans` and `infinities` count how many of its `values` that concerns. `largest` is the
    largest absolute difference, NaN or infinite where only one of two values is, or where infinities differ. `scale` is
    the largest finite expected value.
    """

    largest: float = 0.0
    scale: float = 0.0
    values: int = 0
    nans: int = 0
    infinities: int = 0

    def joined(self, other: "Distance") -> "Distance":
        """The distance of both kinds of values together."""
        return Distance(
            worse(self.largest, other.largest),
            max(self.scale, other.scale),
            self.values + other.values,
            self.nans + other.nans,
            self.infinities + other.infinities,
        )

    @property
    def relative(self) -> float:
        """The largest difference over the largest expected value."""
        if self.largest == 0:
            return 0.0
        return self.largest / self.scale if self.scale else math.inf

    @property
    def nothing_finite(self) -> bool:
        """Whether there are values, and none of the expected ones is finite."""
        return self.values > 0 and self.nans + self.infinities == self.values


@dataclass(frozen=True)
class Distances:
    """How far each of a network's outputs is from the expected one, by position, over any number of batches.

    Outputs may be of different size, such as boxes in pixels and scores in 0..1: each is relative to its own values.
    """

    each: tuple[Distance, ...] = ()

    def joined(self, expected: Sequence[torch.Tensor], actual: Sequence[torch.Tensor]) -> "Distances":
        """The distances with those of another batch, whose outputs may be more or fewer."""
        new = [distance(left, right) for left, right in zip(expected, actual, strict=True)]
        pairs = zip_longest(self.each, new, fillvalue=Distance())
        return Distances(tuple(first.joined(second) for first, second in pairs))

    @property
    def together(self) -> Distance:
        """The distance of all values together."""
        return functools.reduce(Distance.joined, self.each, Distance())

    @property
    def relative(self) -> float:
        """The largest difference over the largest expected value, the worst of all outputs."""
        return functools.reduce(worse, (found.relative for found in self.each), 0.0)


def distance(expected: torch.Tensor, actual: torch.Tensor) -> Distance:
    """How far a tensor is from another of its shape, in double precision."""
    found = Distance()
    for left, right in zip(pieces(expected.detach()), pieces(actual.detach()), strict=True):
        found = found.joined(_of_piece(in_double(left), in_double(right)))
    return found


def _of_piece(expected: torch.Tensor, actual: torch.Tensor) -> Distance:
    largest = _largest(expected - actual)
    if math.isfinite(largest):
        # A difference is finite between finite values only.
        return Distance(largest, _largest(expected), expected.numel())
    nans, finite = expected.isnan(), expected.isfinite()
    infinities = int((~nans & ~finite).sum())
    left, right = _parts(expected), _parts(actual)
    same = (left == right) | (left.isnan() & right.isnan())
    largest = _largest(torch.where(same, 0.0, left - right))
    return Distance(largest, _largest(torch.where(finite, expected, 0)), expected.numel(), int(nans.sum()), infinities)


def _parts(values: torch.Tensor) -> torch.Tensor:
    """The real and imaginary parts of complex numbers, of which one alone may be infinite; others as they are."""
    return torch.view_as_real(values) if values.is_complex() else values


def _largest(values: torch.Tensor) -> float:
    """The largest absolute value; NaN where one is."""
    return values.abs().max().item()


def pieces(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """A tensor's elements, a few at a time: in double precision all of them may take more than the network does."""
    row = tensor.reshape(-1)
    return (row[start : start + PIECE] for start in range(0, row.numel(), PIECE))


def worse(left: float, right: float) -> float:
    """The larger of two differences; NaN is the largest of all."""
    return right if right != right or right > left else left


def tolerance_for(outputs: Sequence[torch.Tensor]) -> float:
    """How far outputs of these types may be apart: that of the shortest type among them."""
    return max((TOLERANCES.get(tensor.dtype, TOLERANCE) for tensor in outputs), default=TOLERANCE)


def same_shapes(expected: Sequence[torch.Tensor], actual: Sequence[torch.Tensor]) -> bool:
    """Whether outputs are as many and of the same shapes."""
    return [tuple(left.shape) for left in expected] == [tuple(right.shape) for right in actual]


def relative_difference(expected: Sequence[torch.Tensor], actual: Sequence[torch.Tensor]) -> float:
    """The largest difference over the largest expected value, the worst of all outputs.

    Infinite where number or shapes of the outputs differ, or where one alone holds NaN.
    """
    if not same_shapes(expected, actual):
        return math.inf
    found = Distances().joined([each.cpu() for each in expected], [each.cpu() for each in actual]).relative
    return math.inf if math.isnan(found) else found


def nothing_finite(outputs: Sequence[torch.Tensor]) -> bool:
    """Whether outputs have values, and none of them is a finite number."""
    found = [tensor for tensor in outputs if tensor.numel()]
    return bool(found) and not any(bool(tensor.isfinite().any()) for tensor in found)
