"""Which channels go: the problem, which is given, and the states of the search for the most that can go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph, Norm, Pointwise, Reader, SplitAxis
from slimnet.graph.labels import Labels
from slimnet.graph.reasons import Kind, Reason
from slimnet.planning.liveness import Needs


@dataclass(frozen=True)
class WidthConstraint:
    """The channels that a layer writes: sets, how often each of them stands there, and the multiple to round up to."""

    sets: np.ndarray
    counts: np.ndarray
    multiple: int

    def is_odd(self, removed: np.ndarray) -> bool:
        """Whether what is left is neither a multiple nor everything."""
        gone = removed[self.sets]
        return bool(gone.any()) and int(self.counts[~gone].sum()) % self.multiple != 0

    @property
    def reason(self) -> Reason:
        """Why its channels stay."""
        whole = self.multiple >= self.counts.sum()
        return Reason(Kind.WHOLE) if whole else Reason(Kind.ROUNDED, detail=str(self.multiple))


class Division(NamedTuple):
    """Sets `(parts, channels)` of which as many have to stay in every part."""

    rows: np.ndarray
    reason: Reason


@dataclass(frozen=True, eq=False)
class Problem:
    """What is given when channels are chosen to go; nothing changes it.

    `pinned[set]` says that a set can never go, and `weight[set]` counts the parameters it holds. `turns` says for the
    op that divides an axis which of the free axes becomes narrower, and `blamed[op]` why its parts cannot. Of the axes
    with `paired` sets two channels stay. `equal` are the parts of axes that must stay of equal size, `widths` what is
    rounded up.
    """

    graph: ChannelGraph
    sets: np.ndarray
    constants: np.ndarray
    needs: Needs
    weight: np.ndarray
    pinned: np.ndarray
    turns: Mapping[int, int] = field(default_factory=dict)
    blamed: Mapping[int, Reason] = field(default_factory=dict)
    paired: frozenset[int] = frozenset()
    equal: tuple[Division, ...] = ()
    widths: tuple[WidthConstraint, ...] = ()

    def axis_of(self, parts: SplitAxis) -> int | None:
        """The axis of a divided axis' grid that is taken to become narrower, None where it is divided by numbers."""
        return axis_of(parts, self.turns)

    @cached_property
    def dead(self) -> np.ndarray:
        """For every label whether its channel is constant as far as anything in the network can tell."""
        return ~(np.isnan(self.constants) & self.needs.live) | switched_off(self.graph, self.constants)

    @cached_property
    def apart(self) -> tuple[Division, ...]:
        """Those of the `equal` parts that hold several sets: a part that is one set goes as a whole."""
        return tuple(parts for parts in self.equal if not (parts.rows == parts.rows[:, :1]).all())

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The sets of all parts of `apart` in a row, where each part begins, and the first part of each division."""
        rows = [division.rows for division in self.apart]
        sizes = np.repeat([each.shape[1] for each in rows], [len(each) for each in rows])
        counts = np.array([len(each) for each in rows])
        return np.concatenate([each.ravel() for each in rows]), np.cumsum(sizes) - sizes, np.cumsum(counts) - counts

    def all_equal(self, removed: np.ndarray) -> bool:
        """Whether the parts of every division in `apart` keep equally many channels, and one at least."""
        if not self.apart:
            return True
        sets, parts, divisions = self._parts
        kept = np.add.reduceat(~removed[sets], parts, dtype=np.int64)
        most, least = np.maximum.reduceat(kept, divisions), np.minimum.reduceat(kept, divisions)
        return bool((most == least).all() and (least > 0).all())

    @cached_property
    def tied(self) -> dict[str, list[tuple[Reader, np.ndarray]]]:
        """The readers of every weight that several read, with what each of them reads."""
        found: dict[str, list[tuple[Reader, np.ndarray]]] = {}
        for reader, reads in zip(self.graph.readers, self.needs.reads, strict=True):
            if reader.weight is not None:
                found.setdefault(reader.weight, []).append((reader, reads))
        return {weight: readers for weight, readers in found.items() if len(readers) > 1}


@dataclass(frozen=True, eq=False)
class Removal:
    """The sets of channels that go, and why others stay: one state of the search for the most that can go.

    `removed[set]`; `why[set]` is the number, among `reasons`, of why a set stays. A step of the search gives another
    state, in which fewer sets go, so that it ends.
    """

    problem: Problem
    removed: np.ndarray
    why: np.ndarray
    reasons: Mapping[Reason, int]

    def __post_init__(self) -> None:
        self.removed.setflags(write=False)
        self.why.setflags(write=False)

    @property
    def graph(self) -> ChannelGraph:
        """The graph whose channels these are."""
        return self.problem.graph

    @property
    def sets(self) -> np.ndarray:
        """The set of every label."""
        return self.problem.sets

    @property
    def constants(self) -> np.ndarray:
        """The constant of every label, NaN where it varies."""
        return self.problem.constants

    @property
    def needs(self) -> Needs:
        """What is needed of the network's values."""
        return self.problem.needs

    @property
    def weight(self) -> np.ndarray:
        """How many parameters each set holds."""
        return self.problem.weight

    def gone(self, labels: Labels) -> np.ndarray:
        """Which of these labels go."""
        return self.removed[self.sets[labels]]

    @cached_property
    def stays(self) -> np.ndarray:
        """For every label whether it stays."""
        return ~self.removed[self.sets]

    @cached_property
    def folded(self) -> np.ndarray:
        """For every label whether it goes with a nonzero constant, which its readers must get elsewhere."""
        return ~self.stays & (np.abs(self.constants) > 0)

    @cached_property
    def _known(self) -> dict[int, tuple[Labels, np.ndarray]]:
        """Which positions of an array of labels stay, by the array's id, together with the array."""
        return {}

    def kept(self, labels: Labels) -> np.ndarray:
        """The positions of these labels that stay; the stages that follow ask for the same arrays many times."""
        found = self._known.get(id(labels))
        if found is None:
            found = self._known[id(labels)] = (labels, self.stays[labels].nonzero()[0])
        return found[1]

    def left(self, labels: Labels) -> int:
        """How many of these labels stay."""
        return self.kept(labels).size

    def restored(self, sets: np.ndarray | Sequence[int], reason: Reason) -> "Removal":
        """The state in which these sets stay after all; this one where none of them goes."""
        back = np.atleast_1d(np.asarray(sets, dtype=np.int64))
        back = back[self.removed[back]]
        if not back.size:
            return self
        removed, why = self.removed.copy(), self.why.copy()
        reasons = self.reasons if reason in self.reasons else {**self.reasons, reason: len(self.reasons)}
        removed[back] = False
        why[back] = reasons[reason]
        return Removal(self.problem, removed, why, reasons)

    def with_problem(self, **given: Any) -> "Removal":
        """The same state of a problem of which more is given."""
        return replace(self, problem=replace(self.problem, **given))


def axis_of(parts: SplitAxis, turns: Mapping[int, int]) -> int | None:
    """The axis of a divided axis' grid that is taken to become narrower, None where it is divided by numbers."""
    choice = turns.get(parts.op, 0)
    return parts.free[choice] % parts.grid.ndim if choice < len(parts.free) else None


def switched_off(graph: ChannelGraph, constants: np.ndarray) -> np.ndarray:
    """For every label whether it varies, but nothing reads it except a BatchNorm whose output does not.

    Such a channel is dead where it stays only because it cannot be cut, such as the filter of a computed weight.
    """
    found = np.zeros(graph.size, dtype=bool)
    for pin in graph.pins:
        if not pin.read:
            found[pin.labels] = True
    for pin in graph.pins:
        if pin.read:
            found[pin.labels] = False
    dead = np.zeros(graph.size, dtype=bool)
    norms = [step for step in graph.steps if isinstance(step, Norm)]
    for norm in norms:
        dead[norm.inputs[~np.isnan(constants[norm.out])]] = True
    found &= dead
    if found.any():
        for step in graph.steps:
            for labels in step.operands if isinstance(step, Pointwise | Norm) else (step.inputs,):
                found[labels[~dead[labels] if isinstance(step, Norm) else slice(None)]] = False
    return found
