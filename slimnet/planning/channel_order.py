"""Check a resized network against the plan, and learn the order its own code puts the channels in.

The resized skeleton is traced once more. Wherever two of its channels meet, the dense network's must have met too;
each axis of each parameter then tells which of the dense channels stand on it, and in which order.
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
    """Channels of different sets met in the resized network; `sets` are the dense sets concerned."""

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


class Matching:
    """Which dense set each set of the resized network stands for, found axis by axis."""

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
        # Most axes share their labels with others, and what was found for them once holds from then on.
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
        """The kept positions, with channels that change places in their new order, each row of them by itself."""
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
        """Let slim sets stand for dense sets from now on."""
        self.dense_set[slim] = dense
        if not np.array_equal(self.dense_set[slim], dense):
            raise MixedChannelsError(dense, where)

    def reorder(
        self, kept: np.ndarray, dense: np.ndarray, slim: np.ndarray, seen: np.ndarray, where: str
    ) -> np.ndarray:
        """Put the kept positions in the order in which other axes met these channels."""
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
    """Where the parts of a split axis are one set each, the code must make fewer parts, not narrower ones.

    The channels of one set cannot be told apart, so that their order would not show it.

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
            # Of parts of one channel each no one is left to show whether it is the right one.
            unseen = (0, 0) if rows.shape[1] == 1 else expected
            if shapes.get(parts.op, unseen) != expected:
                raise MixedChannelsError(rows, str(parts.where))


def check_same_code(removal: Removal, slim: ChannelGraph) -> None:
    """The code must call the same ops with the same numbers, one after the other, whatever the width.

    Raises:
        MixedChannelsError: a number or the way that the code takes depends on a width.
    """
    for dense, narrow in zip_longest(called(removal.graph), called(slim)):
        if dense is None:
            raise MixedChannelsError(removal.sets[labels_among(beside(removal.graph, narrow))], str(narrow))
        if narrow is None or dense.name != narrow.name or not same_numbers(dense, narrow):
            raise MixedChannelsError(removal.sets[labels_among(dense.touched)], str(dense))


def same_numbers(dense: Op, narrow: Op) -> bool:
    """Whether two calls computed with the same numbers, as far as they touched channels; NaN is the same as NaN."""
    unmoved = not (dense.touched and narrow.touched) or dense.numbers == narrow.numbers
    return unmoved or str(dense.numbers) == str(narrow.numbers)


def called(graph: ChannelGraph) -> list[Op]:
    """The ops of a forward in their order, less those that do not say what its code does."""
    return [op for op in graph.ops if not spec_of(op.name).layout_dependent]


def beside(graph: ChannelGraph, extra: Op) -> list[Labels]:
    """What the ops of a module touch in which a narrower network calls another one; everything where there are none."""
    touched = [labels for op in graph.ops if op.module == extra.module for labels in op.touched]
    return touched or [labels for op in graph.ops for labels in op.touched]


def match(removal: Removal, slim: ChannelGraph, rows: Sequence[Sequence[int]]) -> Orders:
    """Find the dense channel behind every position of the resized network's parameters.

    `rows` are the sets that change places, in their new order.

    Raises:
        MixedChannelsError: the network's code does not keep the channels together that belong together.
    """
    check_whole_parts(removal, slim)
    check_same_code(removal, slim)
    matching = Matching(removal, slim, rows)
    axes = {}
    for key, labels in removal.graph.vectors.items():
        if key in slim.vectors:
            axes[key] = matching.order(labels, slim.vectors[key], key[0])
    if len(slim.readers) != len(removal.graph.readers):
        raise MixedChannelsError(
            np.arange(removal.removed.size), "the forward, which runs other layers when it is narrower"
        )
    pairs = list(zip(removal.graph.readers, slim.readers, strict=True))
    inputs = tuple(matching.order(dense.inputs, narrow.inputs, dense.module) for dense, narrow in pairs)
    outputs = tuple(matching.order(dense.outputs, narrow.outputs, dense.module) for dense, narrow in pairs)
    return Orders(axes, inputs, outputs)
