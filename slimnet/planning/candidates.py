"""Removable channels: those whose constants can be folded into their readers, carried by another channel, or are 0."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph, Reader
from slimnet.graph.labels import Labels
from slimnet.graph.reasons import Kind, Reason
from slimnet.planning.channel_reductions import staying
from slimnet.planning.liveness import Needs
from slimnet.planning.removal import Problem, Removal, axis_of


def removable(
    graph: ChannelGraph,
    constants: np.ndarray,
    needed: Needs,
    extra_pins: Iterable[tuple[Labels, Reason]] = (),
    **given: Any,
) -> Removal:
    """The removal of every channel set that is not pinned and whose constants are known wherever they are read.

    `extra_pins` are labels that must stay because a retrace of an earlier plan failed; `given` are further fields of
    the `Problem` that retraces determine.
    """
    blocked = Blocked(graph.sets)
    block_pinned(blocked, graph, constants, extra_pins, given.get("chosen_axes", {}))
    pinned = blocked.sets.copy()
    block_unfoldable(blocked, graph, constants, needed)
    weight = elements_of_sets(graph, len(pinned))
    problem = Problem(graph, graph.sets, constants, needed, weight, pinned, **given)
    return Removal(problem, (weight > 0) & ~blocked.sets, blocked.why, blocked.reasons)


class Blocked:
    """Channel sets that stay, and the first reason for each.

    Attributes:
        sets: whether a set stays, by its number.
        why: the number of the reason, by that of the set; 0 where nothing that holds it can be cut.
        reasons: each reason's number.
    """

    def __init__(self, numbers: np.ndarray) -> None:
        self._numbers = numbers
        count = int(numbers.max()) + 1
        self.sets = np.zeros(count, dtype=bool)
        self.sets[numbers[0]] = True
        self.why = np.zeros(count, dtype=np.int32)
        self.reasons = {Reason(Kind.UNCUT): 0}

    def add(self, labels: Labels, reason: Reason) -> None:
        """Block the sets of these labels that are not blocked yet."""
        numbers = self._numbers[labels]
        new = numbers[~self.sets[numbers]]
        if new.size:
            self.sets[new] = True
            self.why[new] = self.reasons.setdefault(reason, len(self.reasons))


def block_pinned(
    blocked: Blocked,
    graph: ChannelGraph,
    constants: np.ndarray,
    extra_pins: Iterable[tuple[Labels, Reason]],
    chosen_axes: Mapping[int, int],
) -> None:
    """Block what ops pin whatever is removed elsewhere, what sums need, fixed parts, and the extra pins."""
    for pin in graph.pins:
        blocked.add(pin.labels, pin.reason)
    for total in graph.sums:
        blocked.add(staying(graph, constants, total), total.where)
    for parts in graph.parts:
        if parts.fixed is not None and axis_of(parts, chosen_axes) is None:
            blocked.add(parts.fixed, Reason(Kind.TAKEN, parts.where))
    for labels, reason in extra_pins:
        blocked.add(labels[labels > 0], reason)


def block_unfoldable(blocked: Blocked, graph: ChannelGraph, constants: np.ndarray, needed: Needs) -> None:
    """Block what varies where a layer reads it, and constants that no layer can fold or carry."""
    varies = np.isnan(constants)
    for reader, reads in zip(graph.readers, needed.reads, strict=True):
        blocked.add(reader.inputs[reads & varies[reader.inputs]], Reason(Kind.VARIES, reader.at))
    for group in same_weight(graph):
        for labels, reason in unfoldable(graph, group, constants, needed):
            blocked.add(labels, reason)


def elements_of_sets(graph: ChannelGraph, count: int) -> np.ndarray:
    """The approximate number of elements that parameters lose with each of the channel sets `(count,)`."""
    if not graph.vectors:
        return np.zeros(count)
    vectors = list(graph.vectors.values())
    shares = [elements_per_channel(graph, name, axis) for name, axis in graph.vectors]
    elements = np.repeat(shares, [labels.size for labels in vectors])
    return np.bincount(graph.sets[np.concatenate(vectors)], elements, count)


def elements_per_channel(graph: ChannelGraph, name: str, axis: int) -> float:
    """The approximate number of elements that a parameter loses with one channel: the length of its other axis."""
    other = graph.vectors.get((name, 1 - axis)) if axis < 2 else None
    return float(other.size) if other is not None else 1.0


def same_weight(graph: ChannelGraph) -> list[list[int]]:
    """The readers grouped by the weight they share; a computed weight is a group of its own."""
    groups: dict[str, list[int]] = {}
    for index, reader in enumerate(graph.readers):
        groups.setdefault(reader.weight or f"#{index}", []).append(index)
    return list(groups.values())


def unfoldable(
    graph: ChannelGraph, group: list[int], constants: np.ndarray, needed: Needs
) -> list[tuple[Labels, Reason]]:
    """Labels with nonzero constants that the readers of one weight can neither fold nor carry, with the reason."""
    readers = [graph.readers[index] for index in group]
    reads = [needed.reads[index] for index in group]
    if len(readers) == 1 and can_fold(graph, readers[0], group):
        return []
    values = [np.where(read, constants[r.inputs], 0.0) for r, read in zip(readers, reads, strict=True)]
    together = have_one_carrier(readers)
    found = different_calls(readers, reads, values, together)
    for reader, value in zip(readers, values, strict=True):
        if reader.uniform and not bias_is_own(graph, reader, group):
            elsewhere = reader.bias_name in graph.read_elsewhere
            kind = Kind.READ_ELSEWHERE if elsewhere else Kind.NO_BIAS
            found.append((reader.inputs[np.abs(value) > 0], Reason(kind, reader.at)))
        elif not reader.uniform and not together:
            found.append((reader.inputs[np.abs(value) > 0], Reason(Kind.NO_CARRIER, reader.at)))
    return found


def different_calls(
    readers: Sequence[Reader], reads: Sequence[np.ndarray], values: Sequence[np.ndarray], together: bool
) -> list[tuple[Labels, Reason]]:
    """Labels whose constants differ between the calls of one layer, although the calls share one bias.

    Where the calls are `together` they share one carrier instead. Layers with tied weights, such as a transposed one,
    fold into biases of their own. Outputs that no op reads may change.
    """
    calls: dict[tuple[str | None, int], list[int]] = {}
    for index, reader in enumerate(readers):
        if reads[index].any():
            calls.setdefault((None if together else reader.bias_name, reader.in_axis), []).append(index)
    found = []
    for indices in calls.values():
        differs = np.any([~(values[index] == values[indices[0]]) for index in indices], axis=0)
        for reader in (readers[index] for index in indices):
            found.append((reader.inputs[differs], Reason(Kind.CALLS_DIFFER, reader.at)))
    return found


def have_one_carrier(readers: Sequence[Reader]) -> bool:
    """Whether these padded readers of one weight can share a carrier."""
    kinds = {(reader.uniform, reader.weight, reader.in_axis, reader.groups) for reader in readers}
    return len(kinds) == 1 and not readers[0].uniform and readers[0].weight is not None


def can_fold(graph: ChannelGraph, reader: Reader, group: list[int]) -> bool:
    """Whether a reader that does not share its weight can fold constants into a bias, or have a carrier."""
    return bias_is_own(graph, reader, group) if reader.uniform else reader.weight is not None


def bias_is_own(graph: ChannelGraph, reader: Reader, group: list[int]) -> bool:
    """Whether the reader's bias is a parameter that nothing else reads."""
    name = reader.bias_name
    return name is not None and graph.bias_readers[name] <= set(group) and name not in graph.read_elsewhere
