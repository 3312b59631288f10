"""Which channels can go: the calculus between a channel graph with its constants and a plan."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from slimnet.calculus.averaging import staying
from slimnet.calculus.constants import Needs
from slimnet.graph import ChannelGraph, Norm, Parts, Pointwise, Reader
from slimnet.reasons import Kind, Reason
from slimnet.tracing.labels import Labels


@dataclass(frozen=True)
class Width:
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
    widths: list[Width] = field(default_factory=list)
    known: dict[int, tuple[Labels, np.ndarray]] = field(default_factory=dict)
    turns: Mapping[int, int] = field(default_factory=dict)
    paired: frozenset[int] = frozenset()
    blamed: Mapping[int, Reason] = field(default_factory=dict)

    def axis_of(self, parts: Parts) -> int | None:
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


def removable(
    graph: ChannelGraph,
    constants: np.ndarray,
    needed: Needs,
    extra_pins: Iterable[tuple[Labels, Reason]] = (),
    turns: Mapping[int, int] | None = None,
) -> Removal:
    """Every set of channels that nothing pins and whose constants are known wherever they are read.

    `extra_pins` are labels that stay because the network's code did not follow an earlier plan, `turns` which axes of
    divided ones are taken to become narrower for the same reason.
    """
    sets = graph.sets
    count = int(sets.max()) + 1
    blocked = np.zeros(count, dtype=bool)
    blocked[sets[0]] = True
    why = np.zeros(count, dtype=np.int32)
    reasons = {Reason(Kind.UNCUT): 0}

    def block(labels: Labels, reason: Reason) -> None:
        numbers = sets[labels]
        new = numbers[~blocked[numbers]]
        if new.size:
            blocked[new] = True
            why[new] = reasons.setdefault(reason, len(reasons))

    for pin in graph.pins:
        block(pin.labels, pin.reason)
    for total in graph.sums:
        block(staying(graph, constants, total), total.where)
    for parts in graph.parts:
        if parts.fixed is not None and axis_of(parts, turns or {}) is None:
            block(parts.fixed, Reason(Kind.TAKEN, parts.where))
    for labels, reason in extra_pins:
        block(labels[labels > 0], reason)
    pinned = blocked.copy()
    varies = np.isnan(constants)
    for reader, reads in zip(graph.readers, needed.reads, strict=True):
        block(reader.inputs[reads & varies[reader.inputs]], Reason(Kind.VARIES, reader.at))
    for group in same_weight(graph):
        for labels, reason in unfoldable(graph, group, constants, needed):
            block(labels, reason)
    vectors = list(graph.vectors.values())
    shares = [elements_per_channel(graph, name, axis) for name, axis in graph.vectors]
    elements = np.repeat(shares, [labels.size for labels in vectors])
    weight = np.bincount(sets[np.concatenate(vectors)], elements, count) if vectors else np.zeros(count)
    return Removal(
        graph, sets, constants, needed, (weight > 0) & ~blocked, weight, why, reasons, pinned, turns=dict(turns or {})
    )


def axis_of(parts: Parts, turns: Mapping[int, int]) -> int | None:
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


def elements_per_channel(graph: ChannelGraph, name: str, axis: int) -> float:
    """A rough size of one channel's share of a parameter: the other channel axis where it has one."""
    other = graph.vectors.get((name, 1 - axis)) if axis < 2 else None
    return float(other.size) if other is not None else 1.0


def same_weight(graph: ChannelGraph) -> list[list[int]]:
    """The readers grouped by the weight they share; computed weights stand alone."""
    groups: dict[str, list[int]] = {}
    for index, reader in enumerate(graph.readers):
        groups.setdefault(reader.weight or f"#{index}", []).append(index)
    return list(groups.values())


def unfoldable(
    graph: ChannelGraph, group: list[int], constants: np.ndarray, needed: Needs
) -> list[tuple[Labels, Reason]]:
    """Nonzero constants that one weight's readers have nowhere to put, with the reason."""
    readers = [graph.readers[index] for index in group]
    reads = [needed.reads[index] for index in group]
    if len(readers) == 1 and can_fold(graph, readers[0], group):
        return []
    values = [np.where(read, constants[r.inputs], 0.0) for r, read in zip(readers, reads, strict=True)]
    found = []
    # The calls of one layer fold into one bias; layers with tied weights, such as a transposed one, into their own.
    # Padded ones have one carrier. What a call returns that nobody reads may change.
    together = have_one_carrier(readers)
    calls: dict[tuple[str | None, int], list[int]] = {}
    for index, reader in enumerate(readers):
        if reads[index].any():
            calls.setdefault((None if together else reader.bias_name, reader.in_axis), []).append(index)
    for indices in calls.values():
        differs = np.any([~(values[index] == values[indices[0]]) for index in indices], axis=0)
        for reader in (readers[index] for index in indices):
            found.append((reader.inputs[differs], Reason(Kind.CALLS_DIFFER, reader.at)))
    for reader, value in zip(readers, values, strict=True):
        if reader.uniform and not bias_is_own(graph, reader, group):
            found.append((reader.inputs[np.abs(value) > 0], Reason(Kind.NO_BIAS, reader.at)))
        elif not reader.uniform and not together:
            found.append((reader.inputs[np.abs(value) > 0], Reason(Kind.NO_CARRIER, reader.at)))
    return found


def have_one_carrier(readers: Sequence[Reader]) -> bool:
    """Whether these readers of one weight, all padded, can have their constants carried by the same channels."""
    kinds = {(reader.uniform, reader.weight, reader.in_axis, reader.groups) for reader in readers}
    return len(kinds) == 1 and not readers[0].uniform and readers[0].weight is not None


def can_fold(graph: ChannelGraph, reader: Reader, group: list[int]) -> bool:
    """Whether a reader that does not share its weight has where to put constants."""
    return bias_is_own(graph, reader, group) if reader.uniform else reader.weight is not None


def bias_is_own(graph: ChannelGraph, reader: Reader, group: list[int]) -> bool:
    """Whether the reader's bias is a parameter that no other layer uses."""
    return reader.bias_name is not None and graph.bias_readers[reader.bias_name] <= set(group)


def carrier_groups(reader: Reader) -> np.ndarray:
    """The input positions of each group, one row a group: a carrier serves its own group only."""
    return np.arange(reader.inputs.size).reshape(reader.groups, -1)


LEAST_CARRIED = 0.1
"""How large a carrier's constant must be, as a part of the largest that it carries.

A carrier's weights grow by the ratio of the two. Ten times is more than enough: int8 and float16 have one scale for
what may be a thousand weights.
"""


def common_constants(removal: Removal, reader: Reader) -> np.ndarray:
    """The constants that a reader reads, NaN also where another call with its weight reads something else."""
    values = removal.constants[reader.inputs]
    for other, reads in removal.tied.get(reader.weight or "", ()):
        if reads.any():
            values = np.where(removal.constants[other.inputs] == values, values, np.nan)
    return values


def carrier(removal: Removal, reader: Reader, group: np.ndarray, reads: np.ndarray) -> int | None:
    """The position in a group of inputs of the kept and read channel with the largest constant, if it can carry others.

    It must not be much smaller than what it carries, see `LEAST_CARRIED`; what is nearly zero may be only rounding.
    """
    values = np.abs(np.nan_to_num(common_constants(removal, reader)[group]))
    gone, reads = removal.gone(reader.inputs[group]), reads[group]
    least = LEAST_CARRIED * values[gone & reads].max(initial=0.0)
    values[gone | ~reads] = 0.0
    best = int(np.argmax(values))
    return best if values[best] > least else None
