"""Which channels can go: the calculus between a channel graph with its constants and a plan."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from slimnet.calculus.constants import Needs
from slimnet.graph import ChannelGraph, Constants, Reader
from slimnet.tracing.labels import Labels


@dataclass
class Removal:
    """The sets of channels that go, while it is being worked out; only ever restored, so that it ends.

    `removed[set]`; `reason[set]` says why a set stays; `weight[set]` counts the parameters it holds.
    """

    graph: ChannelGraph
    sets: np.ndarray
    constants: np.ndarray
    needs: Needs
    removed: np.ndarray
    weight: np.ndarray
    reason: dict[int, str]
    pinned: np.ndarray
    equal: list[tuple[Labels, str]] = field(default_factory=list)

    def gone(self, labels: Labels) -> np.ndarray:
        """Which of these labels go."""
        return self.removed[self.sets[labels]]

    def restore(self, sets: np.ndarray | Sequence[int], reason: str) -> None:
        """Keep these sets after all."""
        for number in np.atleast_1d(sets):
            if self.removed[number]:
                self.removed[number] = False
                self.reason[int(number)] = reason


def removable(
    graph: ChannelGraph, constants: Constants, needed: Needs, extra_pins: Iterable[tuple[Labels, str]] = ()
) -> Removal:
    """Every set of channels that nothing pins and whose constants are known wherever they are read.

    `extra_pins` are labels that stay because the network's code did not follow an earlier plan.
    """
    sets = graph.sets()
    count = int(sets.max()) + 1
    values = constants.numpy()
    blocked = np.zeros(count, dtype=bool)
    blocked[sets[0]] = True
    reason: dict[int, str] = {}

    def block(labels: Labels, why: str) -> None:
        numbers = sets[labels]
        new = numbers[~blocked[numbers]]
        blocked[new] = True
        reason.update(dict.fromkeys(new.tolist(), why))

    for pin in graph.pins:
        block(pin.labels, pin.reason)
    for labels, why in extra_pins:
        block(labels[labels > 0], why)
    pinned = blocked.copy()
    for reader, reads in zip(graph.readers, needed.reads, strict=True):
        block(reader.inputs[reads & np.isnan(values[reader.inputs])], f"varies where {reader.module} reads it")
    for group in same_weight(graph):
        for labels, why in unfoldable(graph, group, values, needed):
            block(labels, why)
    vectors = list(graph.vectors.values())
    shares = [elements_per_channel(graph, name, axis) for name, axis in graph.vectors]
    elements = np.repeat(shares, [labels.size for labels in vectors])
    weight = np.bincount(sets[np.concatenate(vectors)], elements, count) if vectors else np.zeros(count)
    return Removal(graph, sets, values, needed, (weight > 0) & ~blocked, weight, reason, pinned)


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


def unfoldable(graph: ChannelGraph, group: list[int], constants: np.ndarray, needed: Needs) -> list[tuple[Labels, str]]:
    """Nonzero constants that one weight's readers have nowhere to put, with the reason."""
    readers = [graph.readers[index] for index in group]
    reads = [needed.reads[index] for index in group]
    values = [np.where(read, constants[r.inputs], 0.0) for r, read in zip(readers, reads, strict=True)]
    found = []
    if len(readers) > 1:
        differs = np.zeros(readers[0].inputs.size, dtype=bool)
        for other in values[1:]:
            differs |= ~(other == values[0])
        found += [(r.inputs[differs], f"constant differs between the calls of {r.module}") for r in readers]
    for reader, value in zip(readers, values, strict=True):
        nonzero = np.abs(value) > 0
        if reader.uniform and not bias_is_own(graph, reader, group):
            found.append((reader.inputs[nonzero], f"{reader.module} has no bias to fold it into"))
        elif not reader.uniform and (reader.weight is None or len(readers) > 1):
            found.append((reader.inputs[nonzero], f"the padded weight of {reader.module} is computed or shared"))
    return found


def bias_is_own(graph: ChannelGraph, reader: Reader, group: list[int]) -> bool:
    """Whether the reader's bias is a parameter that no other layer uses."""
    if reader.bias_name is None:
        return False
    if reader.bias is None:
        return True
    labels = graph.vectors.get((reader.bias_name, 0))
    users = [i for i, other in enumerate(graph.readers) if other.bias_name == reader.bias_name]
    return labels is not None and np.array_equal(labels, reader.bias) and set(users) <= set(group)


def settle(removal: Removal) -> None:
    """Restore channels until every axis keeps one, parts are equal, and padded constants have carriers."""
    before = -1
    while before != (before := int(removal.removed.sum())):
        keep_one(removal)
        equalise(removal)
        keep_carriers(removal)


def keep_one(removal: Removal) -> None:
    """An axis never loses its last channel; of several the one that holds the fewest parameters stays."""
    vectors = list(removal.graph.vectors.items())
    if not vectors:
        return
    gone = removal.gone(np.concatenate([labels for _, labels in vectors]))
    starts = np.cumsum([0, *(labels.size for _, labels in vectors[:-1])])
    for index in np.flatnonzero(np.logical_and.reduceat(gone, starts)):
        (name, _), labels = vectors[index]
        sets = removal.sets[labels]
        if removal.removed[sets].all():
            cheapest = sets[np.argmin(removal.weight[sets])]
            removal.restore(cheapest, f"last channel of {name.rpartition('.')[0] or name}")


def equalise(removal: Removal) -> None:
    """Restore channels until every part of a split axis, and every group, keeps as many as the fullest.

    A part that is one set goes as a whole; `match` looks whether the code follows.
    """
    for labels, where in removal.equal:
        rows = removal.sets[labels]
        if (rows == rows[:, :1]).all():
            continue
        gone = removal.removed[rows]
        target = max(1, int((~gone).sum(1).max()))
        for row in np.flatnonzero((~gone).sum(1) < target):
            fill(removal, rows[row], target, f"equal parts at {where}")


def fill(removal: Removal, row: np.ndarray, target: int, reason: str) -> None:
    """Restore the cheapest removed sets of one part until it keeps `target` channels."""
    for number in row[np.argsort(removal.weight[row], kind="stable")]:
        if int((~removal.removed[row]).sum()) >= target:
            return
        removal.restore(number, reason)


def keep_carriers(removal: Removal) -> None:
    """Every padded reader that loses nonzero constants keeps one channel that can carry them."""
    for reader, reads in zip(removal.graph.readers, removal.needs.reads, strict=True):
        if reader.uniform:
            continue
        for group in carrier_groups(reader):
            inputs = reader.inputs[group]
            values = removal.constants[inputs]
            lost = removal.gone(inputs) & reads[group] & (np.abs(values) > 0)
            if lost.any() and carrier(removal, inputs, reads[group]) is None:
                candidates = removal.sets[inputs[lost]]
                removal.restore(
                    candidates[np.argmin(removal.weight[candidates])],
                    f"carrier of constants for {reader.module}",
                )


def carrier_groups(reader: Reader) -> np.ndarray:
    """The input positions of each group, one row a group: a carrier serves its own group only."""
    return np.arange(reader.inputs.size).reshape(reader.groups, -1)


def carrier(removal: Removal, inputs: Labels, reads: np.ndarray) -> int | None:
    """The position among `inputs` of the kept and read channel with the largest known constant, if any is nonzero."""
    values = np.abs(np.nan_to_num(removal.constants[inputs]))
    values[removal.gone(inputs) | ~reads] = 0.0
    best = int(np.argmax(values))
    return best if values[best] > 0 else None
