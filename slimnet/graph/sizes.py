"""Sizes in a network's code, as formulas of integer attributes of modules and of widths of tensors."""

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from slimnet.graph.labels import Labels


class IntegerAttribute(NamedTuple):
    """An integer that a module holds: its path is dotted, such as `width`, `sizes.0` of a list, or `config.width`."""

    module: str
    path: str
    value: int

    def __str__(self) -> str:
        return f"{self.module}.{self.path}" if self.module else self.path


@dataclass(frozen=True, eq=False)
class Width:
    """The width of a tensor: how many channels `(C,)` it has along one axis."""

    labels: Labels


class Formula(NamedTuple):
    """Two sizes and the operation of Python that makes one of them, such as `mul`."""

    operation: str
    left: "Size"
    right: "Size"


Size = int | IntegerAttribute | Width | Formula
"""A size; an int is a number in the code, or one of which the origin is not known."""

OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    name: getattr(operator, name) for name in ("add", "sub", "mul", "floordiv")
}
"""The operations on integers that are followed."""


class SizeUse(NamedTuple):
    """A size that an op was given for an axis of channels: `labels` are those of the tensor, `axis` is one of theirs.

    All axes but this vary. `op` is the index of the op.
    """

    op: int
    labels: Labels
    axis: int
    size: Size

    @property
    def rows(self) -> Labels:
        """The labels `(rows, channels)` along the axis."""
        return np.moveaxis(self.labels, self.axis, -1).reshape(-1, self.labels.shape[self.axis])


def evaluate(size: Size, values: Mapping[IntegerAttribute, int], width: Callable[[Labels], int]) -> int | None:
    """A size where some attributes have other values, and tensors other widths; None where it is divided by zero."""
    if isinstance(size, Formula):
        left, right = evaluate(size.left, values, width), evaluate(size.right, values, width)
        if left is None or right is None or (size.operation == "floordiv" and right == 0):
            return None
        return OPERATIONS[size.operation](left, right)
    if isinstance(size, IntegerAttribute):
        return values.get(size, size.value)
    return width(size.labels) if isinstance(size, Width) else size


def leaves(size: Size) -> Iterator[Size]:
    """What a size is made of: attributes, widths and numbers."""
    if isinstance(size, Formula):
        yield from leaves(size.left)
        yield from leaves(size.right)
    else:
        yield size


def attributes_of(size: Size) -> frozenset[IntegerAttribute]:
    """The attributes that a size is made of."""
    return frozenset(leaf for leaf in leaves(size) if isinstance(leaf, IntegerAttribute))
