"""Split axes: which axis of the divided shape becomes narrower, such as the last of `view(n, 4, -1)`.

The ops do not say: `view(n, 4, -1)` keeps four parts, `view(n, -1, 4)` keeps parts of four, and both are recorded as
sizes. The innermost axis, as of halves and groups, is tried first; if the retrace fails, the other axes follow. Then
channels are permuted, so that those which the code selects (every fourth channel, say) remain the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph, SplitAxis
from slimnet.graph.labels import Labels
from slimnet.graph.reasons import Reason
from slimnet.planning.removal import Removal

ExtraPin = tuple[Labels, Reason]
"""Labels that must be kept because a retrace failed, and the reason."""


@dataclass(frozen=True)
class AxisChoices:
    """The axes chosen to become narrower: `chosen[op]` is an index among the free axes, one more for fixed positions.

    `coming[op]` are the choices not yet tried, `first_pins[op]` is the pin that replaces them if all fail, `done` are
    the ops without further choices.
    """

    chosen: Mapping[int, int] = field(default_factory=dict)
    coming: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    first_pins: Mapping[int, ExtraPin] = field(default_factory=dict)
    done: frozenset[int] = frozenset()

    @classmethod
    def first_choices(cls, removal: Removal) -> "AxisChoices":
        """The first choices: the innermost axis, or another one where that cannot become narrower."""
        groups: dict[tuple[str, str, int], list[SplitAxis]] = {}
        for parts in removal.graph.parts:
            if len(parts.free) > 1:
                groups.setdefault(kind(removal.graph, parts), []).append(parts)
        choices = cls()
        for same in groups.values():
            gains = [
                any(can_shrink(removal, parts, parts.free[way]) for parts in same) for way in range(len(same[0].free))
            ]
            if not gains[0] and any(gains):
                best = gains.index(True)
                others = (way for way in axis_choices(same[0]) if way not in (0, best))
                choices = choices.with_choice([parts.op for parts in same], (best, 0, *others))
        return choices

    def next_choice(
        self, removal: Removal, sets: np.ndarray, position: int, pin: ExtraPin
    ) -> tuple["AxisChoices", ExtraPin | None]:
        """The next choice for the last op up to `position` that divides some of these sets; or the pin if none is left.

        The pin is `pin`, or that of the first failure. All ops of the same source line change together.
        """
        parts = self.last_divided(removal, sets, position)
        if parts is None:
            return self, pin
        ops = {twin.op for twin in same_source_line(removal.graph, parts)}
        coming = self.coming.get(parts.op, axis_choices(parts)[1:])
        if coming:
            first_pins = {**dict.fromkeys(ops, pin), **self.first_pins}
            return replace(self.with_choice(ops, coming), first_pins=first_pins), None
        return self.without(ops), self.first_pins.get(parts.op, pin)

    @property
    def blamed(self) -> dict[int, Reason]:
        """The reason of the first failure, for every op with another choice than the first."""
        return {op: self.first_pins[op][1] for op in self.chosen if op in self.first_pins}

    def with_choice(self, ops: Iterable[int], ways: tuple[int, ...]) -> "AxisChoices":
        """The choices in which these ops have the first of some `ways`, with the others to be tried later."""
        ops = list(ops)
        return replace(
            self,
            chosen={**self.chosen, **dict.fromkeys(ops, ways[0])},
            coming={**self.coming, **dict.fromkeys(ops, ways[1:])},
        )

    def without(self, ops: set[int]) -> "AxisChoices":
        """The choices in which these ops are done."""
        chosen = {op: way for op, way in self.chosen.items() if op not in ops}
        return replace(self, chosen=chosen, done=self.done | ops)

    def without_useless(self, removal: Removal) -> tuple["AxisChoices", list[ExtraPin]]:
        """Give up the choices that remove nothing; returns the pins of their first failures too."""
        choices, found = self, []
        for parts in removal.graph.parts:
            changed = parts.op in choices.first_pins and parts.op not in choices.done
            if changed and not removal.is_removed(parts.grid).any():
                choices = choices.without({twin.op for twin in same_source_line(removal.graph, parts)})
                found.append(self.first_pins[parts.op])
        return choices, found

    def last_divided(self, removal: Removal, sets: np.ndarray, position: int) -> SplitAxis | None:
        """The last split axis, up to an op's position, that has some of these sets, loses channels, and is not done."""
        concerned = np.zeros(removal.removed.size, dtype=bool)
        concerned[sets] = True
        for parts in reversed(removal.graph.parts):
            own = removal.sets[parts.grid]
            fits = parts.op <= position and parts.op not in self.done
            if fits and concerned[own].any() and removal.removed[own].any():
                return parts
        return None


def axis_choices(parts: SplitAxis) -> tuple[int, ...]:
    """The possible choices: one for each free axis, and one more if positions may be fixed."""
    return tuple(range(len(parts.free) + (parts.fixed is not None)))


def can_shrink(removal: Removal, parts: SplitAxis, axis: int) -> bool:
    """Whether channels could be removed if all rows along an axis must lose the same number."""
    return bool(removal.is_removed(parts.along(axis)).any(1).all())


def same_source_line(graph: ChannelGraph, parts: SplitAxis) -> list[SplitAxis]:
    """The split axes of the same source line with the same number of free axes."""
    return [other for other in graph.parts if kind(graph, other) == kind(graph, parts)]


def kind(graph: ChannelGraph, parts: SplitAxis) -> tuple[str, str, int]:
    """The op and the source line that divide an axis, and the number of free axes."""
    op = graph.ops[parts.op]
    return op.name, op.line, len(parts.free)


def permuted_sets(removal: Removal) -> list[list[int]]:
    """The kept sets, in their new order, of every split axis whose channels are permuted."""
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
    """Each number once, at its first position."""
    return list(dict.fromkeys(numbers))
