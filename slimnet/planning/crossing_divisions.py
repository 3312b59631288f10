"""Crossings: channels that are divided in several ways, such as by the grouped convolutions around a channel shuffle.

Equal numbers in the parts of each division do not suffice. A shuffle assigns the channels of an old group to new groups
by position, so that each cell (the intersection of an old and a new group) must keep as many channels as the shuffle
assigns to it. The shuffle is replayed on positions alone, for increasing widths, until the kept channels fit.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import NamedTuple

import numpy as np

from slimnet.graph.labels import unique
from slimnet.graph.reasons import Reason
from slimnet.planning.removal import Division, Removal

MOST_AXES = 4
"""Grids with more axes than this are ignored: they have too many permutations."""


class Step(NamedTuple):
    """An op sequence that moves channels: the axis is viewed as `shape` (-1: the axis that shrinks) and permuted."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Crossing:
    """Divisions of the same channels: `sets` in their first order, and the steps that lead to each division's order.

    If the order of a division is not known, `orders` is None; then every cell keeps an equal share.
    """

    divisions: tuple[Division, ...]
    sets: np.ndarray
    orders: tuple[tuple[Step, ...], ...] | None

    @property
    def reason(self) -> Reason:
        """The reason of the last division, for channels that are kept."""
        return self.divisions[-1].reason

    @property
    def first(self) -> int:
        """The first of its sets, which identifies the crossing."""
        return int(self.sets.min())

    def cells(self, count: int) -> np.ndarray | None:
        """The cell of each of `count` channels in the first order; None if that number cannot be divided."""
        numbers = np.zeros(count, dtype=np.int64)
        for division, steps in zip(self.divisions, self.orders or (), strict=True):
            parts = len(division.rows)
            order = moved(count, steps)
            if order is None or count % parts:
                return None
            own = np.empty(count, dtype=np.int64)
            own[order] = np.arange(count) // (count // parts)
            numbers = numbers * parts + own
        return numbers

    @cached_property
    def shares(self) -> list[np.ndarray]:
        """The cells: groups of sets that are in the same part of every division."""
        numbers = np.full((len(self.divisions), self.sets.size), -1, dtype=np.int64)
        for own, division in zip(numbers, self.divisions, strict=True):
            parts = np.repeat(np.arange(len(division.rows)), division.rows.shape[1])
            own[np.searchsorted(self.sets, division.rows.ravel())] = parts
        _, cell = np.unique(numbers, axis=1, return_inverse=True)
        return [self.sets[cell.ravel() == number] for number in range(int(cell.max()) + 1)]

    def targets(self, removal: Removal) -> Iterator[tuple[np.ndarray, int]]:
        """Groups of sets, and how many of each must be kept, including those that are kept already."""
        yield from self.equal_shares(removal) if self.orders is None else self.counted_off(removal)

    def equal_shares(self, removal: Removal) -> Iterator[tuple[np.ndarray, int]]:
        """The smallest share that every cell can keep."""
        total = math.gcd(*(cell.size for cell in self.shares))
        share = max(1, *(math.ceil(int((~removal.removed[cell]).sum()) * total / cell.size) for cell in self.shares))
        for cell in self.shares:
            yield cell, cell.size * share // total

    def counted_off(self, removal: Removal) -> Iterator[tuple[np.ndarray, int]]:
        """How many channels the replayed code assigns to each run of a cell, at the smallest width that fits."""
        stay = ~removal.removed[self.sets]
        dense = self.cells(self.sets.size)
        assert dense is not None
        starts, lengths = runs(dense)
        least = np.add.reduceat(stay.astype(np.int64), starts)
        for count in range(max(1, int(stay.sum())), self.sets.size + 1):
            narrow = self.cells(count)
            counts = None if narrow is None else counts_by_run(dense[starts], narrow)
            if counts is not None and (least <= counts).all() and (counts <= lengths).all():
                yield from zip(np.split(self.sets, starts[1:]), counts.tolist(), strict=True)
                return


def runs(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The starts and lengths of runs of equal numbers."""
    starts = np.concatenate([[0], np.flatnonzero(numbers[1:] != numbers[:-1]) + 1])
    return starts, np.diff(starts, append=numbers.size)


def counts_by_run(dense: np.ndarray, narrow: np.ndarray) -> np.ndarray | None:
    """The length in the slim network of each run of the dense network's cells; None if the runs differ."""
    starts, lengths = runs(narrow)
    found = np.zeros(dense.size, dtype=np.int64)
    place = 0
    for cell, length in zip(narrow[starts].tolist(), lengths.tolist(), strict=True):
        while place < dense.size and dense[place] != cell:
            place += 1
        if place == dense.size:
            return None
        found[place] = length
        place += 1
    return found


def moved(count: int, steps: Sequence[Step]) -> np.ndarray | None:
    """The positions of `count` channels after these steps; None if they do not fit the shapes."""
    order = np.arange(count)
    for step in steps:
        if count % math.prod(size for size in step.shape if size > 0):
            return None
        order = order.reshape(step.shape).transpose(step.axes).ravel()
    return order


def find_crossings(removal: Removal) -> list[Crossing]:
    """The crossings from which channels are removed."""
    groups = connected(distinct_divisions(removal))
    return [crossing_of(removal, divisions) for divisions in groups if len(divisions) > 1]


def distinct_divisions(removal: Removal) -> list[Division]:
    """Every distinct division from which channels are removed, except those in which a set occurs twice."""
    found: dict[tuple[int, bytes], Division] = {}
    for division in removal.problem.equal:
        rows = division.rows
        if len(rows) > 1 and removal.removed[rows].any() and unique(rows).size == rows.size:
            found.setdefault((len(rows), rows.tobytes()), division)
    return list(found.values())


def connected(divisions: Sequence[Division]) -> list[list[Division]]:
    """The divisions grouped by the sets that they share."""
    groups: list[tuple[set[int], list[Division]]] = []
    for division in divisions:
        own, members = set(division.rows.ravel().tolist()), [division]
        separate = []
        for sets, others in groups:
            if own.isdisjoint(sets):
                separate.append((sets, others))
            else:
                own |= sets
                members = others + members
        groups = [*separate, (own, members)]
    return [members for _, members in groups]


def crossing_of(removal: Removal, divisions: list[Division]) -> Crossing:
    """Divisions that share channels as a crossing, with the steps between their orders where these are known."""
    universe = unique(np.concatenate([division.rows.ravel() for division in divisions]))
    if all(division.rows.size == universe.size for division in divisions):
        grids = grids_of(removal, universe)
        for base in [*(grid.ravel() for grid, axis in grids if axis == grid.ndim - 1), divisions[0].rows.ravel()]:
            known = orders_from(base, grids)
            orders = [known[key] for division in divisions if (key := division.rows.tobytes()) in known]
            if len(orders) == len(divisions):
                return Crossing(tuple(divisions), base, tuple(orders))
    return Crossing(tuple(divisions), universe, None)


def grids_of(removal: Removal, universe: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """The grids as which the code views these channels, each with the axis that shrinks, also with that axis last."""
    found = []
    for parts in removal.graph.parts:
        axis = removal.problem.axis_of(parts)
        if axis is None or parts.grid.size != universe.size or not 1 < parts.grid.ndim <= MOST_AXES:
            continue
        grid = removal.sets[parts.grid].astype(np.int64)
        if np.array_equal(np.sort(grid, axis=None), universe):
            found += [(grid, axis), (np.ascontiguousarray(np.moveaxis(grid, axis, -1)), grid.ndim - 1)]
    return found


def orders_from(base: np.ndarray, grids: Sequence[tuple[np.ndarray, int]]) -> dict[bytes, tuple[Step, ...]]:
    """The orders that can be reached from `base` by permuting the grids, with the steps that lead to each."""
    found: dict[bytes, tuple[Step, ...]] = {base.tobytes(): ()}
    waiting = [base.tobytes()]
    while waiting:
        order = waiting.pop()
        for grid, axis in grids:
            if grid.tobytes() != order:
                continue
            shape = tuple(-1 if place == axis else size for place, size in enumerate(grid.shape))
            for axes in permutations(range(grid.ndim)):
                key = grid.transpose(axes).tobytes()
                if key not in found:
                    found[key] = (*found[order], Step(shape, axes))
                    waiting.append(key)
    return found
