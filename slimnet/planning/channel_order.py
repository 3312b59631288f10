"""Compare a retrace with the plan, and infer the order in which the network's code arranges the channels.

The resized skeleton is traced. Wherever an op pairs two of its channels, the dense network must have paired them too.
From that follows which dense channels are on each axis of each parameter, and in which order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph, Op
from slimnet.graph.labels import Labels, labels_among, unique
from slimnet.planning.removal import Removal
from slimnet.tracing.ops.registry import spec_of


class MixedChannelsError(Exception):
    """An op of the resized network paired channels of different sets; `sets` are the dense sets affected."""

    def __init__(self, sets: np.ndarray, where: str):
        super().__init__(where)
        self.sets = unique(sets)
        self.where = where


@dataclass(frozen=True)
class Orders:
    """Dense positions in the order of the slim network: for parameter axes, and for the readers' channels."""

    axes: dict[tuple[str, int], np.ndarray]
    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]


class SetMatcher:
    """Maps each channel set of the resized network to a dense set, axis by axis."""

    def __init__(self, removal: Removal, slim: ChannelGraph, rows: Sequence[Sequence[int]]):
        self.removal = removal
        self.slim_sets = slim.sets
        self.dense_set = np.full(int(self.slim_sets.max()) + 1, -1, dtype=np.int64)
        self.row = np.full(removal.removed.size, -1, dtype=np.int64)
        self.place = np.zeros(removal.removed.size, dtype=np.int64)
        self.known: dict[tuple[int, int], np.ndarray] = {}
        for number, sets in enumerate(rows):
            self.row[list(sets)], self.place[list(sets)] = number, np.arange(len(sets))

    def order(self, dense_labels: np.ndarray, slim_labels: np.ndarray, where: str) -> np.ndarray:
        """Dense positions for each position of a slim axis.

        Raises:
            MixedChannelsError: no order of the kept channels fits.
        """
        # Most axes share their labels with others, so the result is cached.
        key = (id(dense_labels), id(slim_labels))
        if key in self.known:
            return self.known[key]
        dense = self.removal.sets[dense_labels]
        kept = self.removal.kept(dense_labels)
        slim = self.slim_sets[slim_labels]
        if kept.size != slim.size:
            raise MixedChannelsError(dense, where)
        expected = self.arrange(kept, dense)
        seen = self.dense_set[slim]
        if (seen < 0).all():
            self.assign(slim, dense[expected], where)
            self.known[key] = expected
            return expected
        if np.array_equal(seen, dense[expected]):
            self.known[key] = expected
            return expected
        return self.reorder(kept, dense, slim, seen, where)

    def arrange(self, kept: np.ndarray, dense: np.ndarray) -> np.ndarray:
        """The kept positions; the channels of each permuted row are in their new order."""
        rows = self.row[dense[kept]]
        changing = np.flatnonzero(rows >= 0)
        if not changing.size:
            return kept
        arranged = kept.copy()
        for row in set(rows[changing].tolist()):
            own = np.flatnonzero(rows == row)
            arranged[own] = kept[own[np.argsort(self.place[dense[kept[own]]], kind="stable")]]
        return arranged

    def assign(self, slim: np.ndarray, dense: np.ndarray, where: str) -> None:
        """Map slim sets to dense sets.

        Raises:
            MixedChannelsError: one slim set would be mapped to two dense sets.
        """
        self.dense_set[slim] = dense
        if not np.array_equal(self.dense_set[slim], dense):
            raise MixedChannelsError(dense, where)

    def reorder(
        self, kept: np.ndarray, dense: np.ndarray, slim: np.ndarray, seen: np.ndarray, where: str
    ) -> np.ndarray:
        """Sort the kept positions into the order that other axes have determined for these sets."""
        waiting: dict[int, list[int]] = {}
        for position in self.arrange(kept, dense)[::-1].tolist():
            waiting.setdefault(int(dense[position]), []).append(position)
        order = np.full(slim.size, -1, dtype=np.int64)
        for index in np.flatnonzero(seen >= 0).tolist():
            positions = waiting.get(int(seen[index]))
            if not positions:
                raise MixedChannelsError(np.append(dense, seen[index]), where)
            order[index] = positions.pop()
        left = sorted(position for positions in waiting.values() for position in positions)
        order[order < 0] = self.arrange(np.array(left, dtype=np.int64), dense) if left else left
        self.assign(slim, dense[order], where)
        return order


def check_whole_parts(removal: Removal, slim: ChannelGraph) -> None:
    """Check that the code makes fewer parts, not narrower ones, where each part of a split axis is one channel set.

    The channels of one set cannot be distinguished, so that their order does not reveal it.

    Raises:
        MixedChannelsError: it makes as many parts as before.
    """
    shapes = {parts.op: parts.rows.shape for parts in slim.parts}
    for parts in removal.graph.parts:
        rows = removal.sets[parts.rows]
        if removal.problem.axis_of(parts) is None:
            continue
        if (rows == rows[:, :1]).all() and removal.removed[rows].any():
            expected = (int((~removal.removed[rows[:, 0]]).sum()), rows.shape[1])
            # Where parts have one channel each, a removed part leaves no channel by which it could be identified.
            unseen = (0, 0) if rows.shape[1] == 1 else expected
            if shapes.get(parts.op, unseen) != expected:
                raise MixedChannelsError(rows, str(parts.where))


def check_same_code(removal: Removal, slim: ChannelGraph) -> None:
    """Check that the code calls the same ops with the same numbers in the same order, whatever the width.

    Raises:
        MixedChannelsError: a number or the control flow depends on a width.
    """
    for dense, narrow in zip_longest(called(removal.graph), called(slim)):
        if dense is None:
            raise MixedChannelsError(removal.sets[labels_among(labels_nearby(removal.graph, narrow))], str(narrow))
        if narrow is None or dense.name != narrow.name or not same_numbers(dense, narrow):
            raise MixedChannelsError(removal.sets[labels_among(dense.touched)], str(dense))


def same_numbers(dense: Op, narrow: Op) -> bool:
    """Whether two calls had the same numbers as arguments, where they touch channels; NaN equals NaN."""
    unmoved = not (dense.touched and narrow.touched) or dense.numbers == narrow.numbers
    return unmoved or str(dense.numbers) == str(narrow.numbers)


def called(graph: ChannelGraph) -> list[Op]:
    """The ops of a forward in order, without those that torch calls depending on the memory layout."""
    return [op for op in graph.ops if not spec_of(op.name).layout_dependent]


def labels_nearby(graph: ChannelGraph, extra: Op) -> list[Labels]:
    """The labels touched in the module where the slim network calls an extra op; all labels if there are none."""
    touched = [labels for op in graph.ops if op.module == extra.module for labels in op.touched]
    return touched or [labels for op in graph.ops for labels in op.touched]


def match(removal: Removal, slim: ChannelGraph, rows: Sequence[Sequence[int]]) -> Orders:
    """Find the dense channel of every position of the resized network's parameters.

    `rows` are the sets that are permuted, in their new order.

    Raises:
        MixedChannelsError: the network's code separates channels of one set.
    """
    check_whole_parts(removal, slim)
    check_same_code(removal, slim)
    matcher = SetMatcher(removal, slim, rows)
    axes = {}
    for key, labels in removal.graph.vectors.items():
        if key in slim.vectors:
            axes[key] = matcher.order(labels, slim.vectors[key], key[0])
    if len(slim.readers) != len(removal.graph.readers):
        raise MixedChannelsError(
            np.arange(removal.removed.size), "the forward, which runs other layers when it is narrower"
        )
    pairs = list(zip(removal.graph.readers, slim.readers, strict=True))
    inputs = tuple(matcher.order(dense.inputs, narrow.inputs, dense.module) for dense, narrow in pairs)
    outputs = tuple(matcher.order(dense.outputs, narrow.outputs, dense.module) for dense, narrow in pairs)
    return Orders(axes, inputs, outputs)
