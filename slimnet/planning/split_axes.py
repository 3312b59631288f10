"""Which axis of a divided axis becomes narrower: `view(n, 4, -1)` keeps four parts, `view(n, -1, 4)` parts of four.

The ops look alike. What stands side by side is taken to become narrower first, as halves and groups do; where the
network's code does not follow, the other axes are tried. Then channels change places, so that what the code takes for
the same column still is: every fourth channel, say.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph, SplitAxis
from slimnet.graph.labels import Labels
from slimnet.graph.reasons import Reason
from slimnet.planning.removal import Removal

ExtraPin = tuple[Labels, Reason]
"""Labels that stay since the network's code did not follow a plan, and why."""


@dataclass(frozen=True)
class Turns:
    """What has been tried: `chosen[op]` is the place among the free axes, one more for fixed positions.

    `coming[op]` are the places that come next, `first[op]` is what would have been pinned the first time, `done` are
    ops for which nothing is left to try.
    """

    chosen: Mapping[int, int] = field(default_factory=dict)
    coming: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    first: Mapping[int, ExtraPin] = field(default_factory=dict)
    done: frozenset[int] = frozenset()

    @classmethod
    def at_first(cls, removal: Removal) -> "Turns":
        """Another axis where the one that stands side by side could not lose anything."""
        groups: dict[tuple[str, str, int], list[SplitAxis]] = {}
        for parts in removal.graph.parts:
            if len(parts.free) > 1:
                groups.setdefault(kind(removal.graph, parts), []).append(parts)
        turns = cls()
        for same in groups.values():
            gains = [
                any(can_shrink(removal, parts, parts.free[way]) for parts in same) for way in range(len(same[0].free))
            ]
            if not gains[0] and any(gains):
                best = gains.index(True)
                others = (way for way in axis_choices(same[0]) if way not in (0, best))
                turns = turns.choosing([parts.op for parts in same], (best, 0, *others))
        return turns

    def turned(
        self, removal: Removal, sets: np.ndarray, position: int, pin: ExtraPin
    ) -> tuple["Turns", ExtraPin | None]:
        """Another axis for the last op, up to a position, that divides some sets; else what is to be pinned.

        That is `pin`, or what it was before other axes were tried. All ops of the same line of code turn together.
        """
        parts = self.last(removal, sets, position)
        if parts is None:
            return self, pin
        ops = {twin.op for twin in same_source_line(removal.graph, parts)}
        coming = self.coming.get(parts.op, axis_choices(parts)[1:])
        if coming:
            return replace(self.choosing(ops, coming), first={**dict.fromkeys(ops, pin), **self.first}), None
        return self.without(ops), self.first.get(parts.op, pin)

    @property
    def blamed(self) -> dict[int, Reason]:
        """Of the ops that are taken to divide otherwise since the code did not follow, what was to blame for that."""
        return {op: self.first[op][1] for op in self.chosen if op in self.first}

    def choosing(self, ops: Iterable[int], ways: tuple[int, ...]) -> "Turns":
        """The first of some ways for these ops, the others for later."""
        ops = list(ops)
        return replace(
            self,
            chosen={**self.chosen, **dict.fromkeys(ops, ways[0])},
            coming={**self.coming, **dict.fromkeys(ops, ways[1:])},
        )

    def without(self, ops: set[int]) -> "Turns":
        """Nothing is left to try for these ops."""
        chosen = {op: way for op, way in self.chosen.items() if op not in ops}
        return replace(self, chosen=chosen, done=self.done | ops)

    def given_up(self, removal: Removal) -> tuple["Turns", list[ExtraPin]]:
        """What is to be pinned since turning an op to another axis lets nothing go: what was to be the first time."""
        turns, found = self, []
        for parts in removal.graph.parts:
            turned = parts.op in turns.first and parts.op not in turns.done
            if turned and not removal.gone(parts.grid).any():
                turns = turns.without({twin.op for twin in same_source_line(removal.graph, parts)})
                found.append(self.first[parts.op])
        return turns, found

    def last(self, removal: Removal, sets: np.ndarray, position: int) -> SplitAxis | None:
        """The last op, up to a position, that divides some of these sets, loses channels, and is not done."""
        concerned = np.zeros(removal.removed.size, dtype=bool)
        concerned[sets] = True
        for parts in reversed(removal.graph.parts):
            own = removal.sets[parts.grid]
            fits = parts.op <= position and parts.op not in self.done
            if fits and concerned[own].any() and removal.removed[own].any():
                return parts
        return None


def axis_choices(parts: SplitAxis) -> tuple[int, ...]:
    """The places that may be chosen: one for each free axis, and one for fixed positions."""
    return tuple(range(len(parts.free) + (parts.fixed is not None)))


def can_shrink(removal: Removal, parts: SplitAxis, axis: int) -> bool:
    """Whether channels could go if all rows along an axis have to lose as many."""
    return bool(removal.gone(parts.along(axis)).any(1).all())


def same_source_line(graph: ChannelGraph, parts: SplitAxis) -> list[SplitAxis]:
    """The divisions by the same line of code into as many free axes."""
    return [other for other in graph.parts if kind(graph, other) == kind(graph, parts)]


def kind(graph: ChannelGraph, parts: SplitAxis) -> tuple[str, str, int]:
    """The op and the line that divide an axis, and into how many free axes."""
    op = graph.ops[parts.op]
    return op.name, op.line, len(parts.free)


def new_places(removal: Removal) -> list[list[int]]:
    """The kept sets of every divided axis whose channels change places, in their new order."""
    found = []
    for parts in removal.graph.parts:
        axis = removal.problem.axis_of(parts)
        if axis is None or axis == parts.grid.ndim - 1:
            continue
        rows = removal.sets[parts.along(axis)]
        kept = ~removal.removed[rows]
        count = int(kept[0].sum())
        if not kept.all() and (kept.sum(1) == count).all():
            others = [size for place, size in enumerate(parts.grid.shape) if place != axis]
            grid = np.moveaxis(rows[kept].reshape(*others, count), -1, axis)
            found.append(unique_in_order(grid.ravel().tolist()))
    return found


def unique_in_order(numbers: Iterable[int]) -> list[int]:
    """Each number where it stands first."""
    return list(dict.fromkeys(numbers))
