"""The removal problem, and the removals that are the states of the search for the largest one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph, Norm, Pointwise, Reader, SplitAxis
from slimnet.graph.labels import Labels
from slimnet.graph.reasons import Reason
from slimnet.planning.liveness import Needs


@dataclass(frozen=True)
class WidthConstraint:
    """The width of a layer: the sets it writes, the number of channels of each, and the widths it may have.

    `allowed` `(C + 1,)` says so of each width from 0; the complete one, C, is allowed in any case. `reason` is that of
    channels which are kept for it.
    """

    sets: np.ndarray
    counts: np.ndarray
    allowed: np.ndarray
    reason: Reason

    def is_odd(self, removed: np.ndarray) -> bool:
        """Whether the remaining width is neither allowed nor the complete one."""
        own = removed[self.sets]
        return bool(own.any()) and not self.allowed[int(self.counts[~own].sum())]


class Division(NamedTuple):
    """Sets `(parts, channels)` of which every part must keep the same number."""

    rows: np.ndarray
    reason: Reason


@dataclass(frozen=True, eq=False)
class Problem:
    """The immutable input of the search for channels to remove.

    `pinned[set]` marks the sets that can never be removed, `weight[set]` counts the parameters of a set.
    `chosen_axes[op]` is the free axis that becomes narrower where an op divides channels, `blamed[op]` the reason why
    another one cannot. Axes with `paired` sets keep two channels. `equal` are the divisions whose parts must stay
    equal, `widths` the widths that are rounded up.
    """

    graph: ChannelGraph
    sets: np.ndarray
    constants: np.ndarray
    needs: Needs
    weight: np.ndarray
    pinned: np.ndarray
    chosen_axes: Mapping[int, int] = field(default_factory=dict)
    blamed: Mapping[int, Reason] = field(default_factory=dict)
    paired: frozenset[int] = frozenset()
    equal: tuple[Division, ...] = ()
    widths: tuple[WidthConstraint, ...] = ()

    def axis_of(self, parts: SplitAxis) -> int | None:
        """The axis of a split axis' grid that becomes narrower; None if the code divides it at fixed positions."""
        return axis_of(parts, self.chosen_axes)

    @cached_property
    def dead(self) -> np.ndarray:
        """For every label whether its channel is constant, or read only by BatchNorms with constant outputs."""
        return ~(np.isnan(self.constants) & self.needs.live) | switched_off(self.graph, self.constants)

    @cached_property
    def separable(self) -> tuple[Division, ...]:
        """The `equal` divisions whose parts hold several sets: a part that is one set is removed as a whole."""
        return tuple(parts for parts in self.equal if not (parts.rows == parts.rows[:, :1]).all())

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The sets of all `separable` parts, concatenated, the start of each part, and each division's first part."""
        rows = [division.rows for division in self.separable]
        sizes = np.repeat([each.shape[1] for each in rows], [len(each) for each in rows])
        counts = np.array([len(each) for each in rows])
        return np.concatenate([each.ravel() for each in rows]), np.cumsum(sizes) - sizes, np.cumsum(counts) - counts

    def all_equal(self, removed: np.ndarray) -> bool:
        """Whether the parts of every `separable` division keep the same number of channels, and at least one."""
        if not self.separable:
            return True
        sets, parts, divisions = self._parts
        kept = np.add.reduceat(~removed[sets], parts, dtype=np.int64)
        most, least = np.maximum.reduceat(kept, divisions), np.minimum.reduceat(kept, divisions)
        return bool((most == least).all() and (least > 0).all())

    @cached_property
    def tied(self) -> dict[str, list[tuple[Reader, np.ndarray]]]:
        """The readers of every weight that has several, with the inputs that each of them reads."""
        found: dict[str, list[tuple[Reader, np.ndarray]]] = {}
        for reader, reads in zip(self.graph.readers, self.needs.reads, strict=True):
            if reader.weight is not None:
                found.setdefault(reader.weight, []).append((reader, reads))
        return {weight: readers for weight, readers in found.items() if len(readers) > 1}


@dataclass(frozen=True, eq=False)
class Removal:
    """The channel sets that are removed, and why others are kept: a state of the search for the largest removal.

    `removed[set]` marks the removed sets; `why[set]` is the index in `reasons` of why a set is kept. Each step of the
    search returns another state, in which fewer sets are removed, so that the search ends.
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
        """The values that the network's outputs depend on."""
        return self.problem.needs

    @property
    def weight(self) -> np.ndarray:
        """How many parameters each set holds."""
        return self.problem.weight

    def is_removed(self, labels: Labels) -> np.ndarray:
        """Which of these labels are removed."""
        return self.removed[self.sets[labels]]

    @cached_property
    def stays(self) -> np.ndarray:
        """For every label whether it is kept."""
        return ~self.removed[self.sets]

    @cached_property
    def folded(self) -> np.ndarray:
        """For every label whether it is removed with a nonzero constant, which must be folded or carried."""
        return ~self.stays & (np.abs(self.constants) > 0)

    @cached_property
    def _known(self) -> dict[int, tuple[Labels, np.ndarray]]:
        """The cache of `kept`: an array of labels and its kept positions, by the array's id."""
        return {}

    def kept(self, labels: Labels) -> np.ndarray:
        """The positions of these labels that are kept; cached, since later stages need the same arrays many times."""
        found = self._known.get(id(labels))
        if found is None:
            found = self._known[id(labels)] = (labels, self.stays[labels].nonzero()[0])
        return found[1]

    def count_kept(self, labels: Labels) -> int:
        """How many of these labels are kept."""
        return self.kept(labels).size

    def restored(self, sets: np.ndarray | Sequence[int], reason: Reason) -> "Removal":
        """The state in which these sets are kept; this one if none of them is removed."""
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
        """The same state with other fields of the problem."""
        return replace(self, problem=replace(self.problem, **given))


def axis_of(parts: SplitAxis, chosen_axes: Mapping[int, int]) -> int | None:
    """The axis of a split axis' grid that becomes narrower; None if the code divides it at fixed positions."""
    choice = chosen_axes.get(parts.op, 0)
    return parts.free[choice] % parts.grid.ndim if choice < len(parts.free) else None


def switched_off(graph: ChannelGraph, constants: np.ndarray) -> np.ndarray:
    """For every label whether it varies, but is read only by BatchNorms whose output is constant.

    Such a channel is dead, although it may not be removable, such as the filter of a computed weight.
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
