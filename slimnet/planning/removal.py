"""Which channels can go: the calculus between a channel graph with its constants and a plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

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


@dataclass
class Removal:
    """The sets of channels that go, while it is being worked out; only ever restored, so that it ends.

    `turns` says for the op that divides an axis which of the free axes it is taken to make narrower.
    `removed[set]`; `why[set]` is the number, among `reasons`, of why a set stays; `weight[set]` counts the parameters
    it holds. `equal` are the parts of axes that must stay of equal size, `widths` what is rounded up. `known` remembers
    which positions of an array of labels stay, by the array's id, together with the array. Of the axes with `paired`
    sets two channels stay. `blamed[op]` is why the parts of an op that divides an axis cannot be narrower.
    """

    graph: ChannelGraph
    sets: np.ndarray
    constants: np.ndarray
    needs: Needs
    removed: np.ndarray
    weight: np.ndarray
    why: np.ndarray
    reasons: dict[Reason, int]
    pinned: np.ndarray
    equal: list[tuple[Labels, Reason]] = field(default_factory=list)
    widths: list[WidthConstraint] = field(default_factory=list)
    known: dict[int, tuple[Labels, np.ndarray]] = field(default_factory=dict)
    turns: Mapping[int, int] = field(default_factory=dict)
    paired: frozenset[int] = frozenset()
    blamed: Mapping[int, Reason] = field(default_factory=dict)

    def axis_of(self, parts: SplitAxis) -> int | None:
        """The axis of a divided axis' grid that is taken to become narrower, None where it is divided by numbers."""
        return axis_of(parts, self.turns)

    def gone(self, labels: Labels) -> np.ndarray:
        """Which of these labels go."""
        return self.removed[self.sets[labels]]

    @cached_property
    def dead(self) -> np.ndarray:
        """For every label whether its channel is constant as far as anything in the network can tell."""
        return ~(np.isnan(self.constants) & self.needs.live) | switched_off(self.graph, self.constants)

    @cached_property
    def stays(self) -> np.ndarray:
        """For every label whether it stays."""
        return ~self.removed[self.sets]

    @cached_property
    def folded(self) -> np.ndarray:
        """For every label whether it goes with a nonzero constant, which its readers must get elsewhere."""
        return ~self.stays & (np.abs(self.constants) > 0)

    @cached_property
    def tied(self) -> dict[str, list[tuple[Reader, np.ndarray]]]:
        """The readers of every weight that several read, with what each of them reads."""
        found: dict[str, list[tuple[Reader, np.ndarray]]] = {}
        for reader, reads in zip(self.graph.readers, self.needs.reads, strict=True):
            if reader.weight is not None:
                found.setdefault(reader.weight, []).append((reader, reads))
        return {weight: readers for weight, readers in found.items() if len(readers) > 1}

    def kept(self, labels: Labels) -> np.ndarray:
        """The positions of these labels that stay; the stages that follow ask for the same arrays many times."""
        found = self.known.get(id(labels))
        if found is None:
            found = self.known[id(labels)] = (labels, self.stays[labels].nonzero()[0])
        return found[1]

    def left(self, labels: Labels) -> int:
        """How many of these labels stay."""
        return self.kept(labels).size

    def restore(self, sets: np.ndarray | Sequence[int], reason: Reason) -> None:
        """Keep these sets after all."""
        back = np.atleast_1d(sets)
        back = back[self.removed[back]]
        if back.size:
            self.removed[back] = False
            self.known.clear()
            for name in ("stays", "folded"):
                vars(self).pop(name, None)
            self.why[back] = self.reasons.setdefault(reason, len(self.reasons))


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
