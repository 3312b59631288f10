"""Attributes that are widths: which integers of modules must change with the channels, and to what.

The trace says from which attributes the network's code computes the sizes that it gives to ops. A removal says what
these sizes must become. An attribute is changed where exactly one value of it, or of one attribute among several, gives
all of them; what comes of it is for the retrace to tell.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph
from slimnet.graph.reasons import Kind, Reason
from slimnet.graph.sizes import IntegerAttribute, SizeUse, Width, attributes_of, evaluate
from slimnet.planning.removal import Division, Removal
from slimnet.planning.split_axes import ExtraPin
from slimnet.surgery.plan_data import AttributeCut

Values = dict[IntegerAttribute, int]

Link = tuple[int, ...]
"""The indices of uses that must keep equally many channels, since they are given the same size."""


WIDEST = 20_000
"""The largest attribute that is thought to be a width: every value below it is tried."""


@dataclass(frozen=True)
class AttributeValues:
    """The new values of attributes that are widths, by what a removal leaves.

    `links` are uses of one size that would need different ones, `unclear` the attributes of sizes for which no single
    attribute has a value. `changing` are the indices of the uses that must be given another size.
    """

    values: Mapping[IntegerAttribute, int] = field(default_factory=dict)
    links: frozenset[Link] = frozenset()
    unclear: frozenset[IntegerAttribute] = frozenset()
    changing: tuple[int, ...] = ()

    @property
    def cuts(self) -> tuple[AttributeCut, ...]:
        """The changes of attributes, in order."""
        changed = ((each, value) for each, value in self.values.items() if value != each.value)
        return tuple(AttributeCut(each.module, each.path, each.value, value) for each, value in sorted(changed))


def counted_channels(removal: Removal) -> tuple[AttributeCut, ...]:
    """The new numbers of channels and groups of normalisations without tensors, where they change; each once."""
    left = {
        (norm.module, norm.attribute): (norm.labels.size, removal.count_kept(norm.labels))
        for norm in removal.graph.counted
    }
    return tuple(
        AttributeCut(module, attribute, before, after)
        for (module, attribute), (before, after) in left.items()
        if after != before
    )


def attribute_values(removal: Removal) -> AttributeValues:
    """The values that the attributes in a network's sizes must have after a removal."""
    if not removal.graph.uses:
        return AttributeValues()
    needed = {place: size_left(removal, use) for place, use in enumerate(removal.graph.uses)}
    return Solver(removal, {place: size for place, size in needed.items() if size is not None}).solve()


def size_left(removal: Removal, use: SizeUse) -> int | None:
    """The size that an op must be given after a removal; None where the parts along other axes are not equal."""
    labels = use.labels
    if labels.ndim == 1:
        return removal.count_kept(labels)
    stays = removal.stays[labels]
    if stays.all():
        return int(labels.shape[use.axis])
    for axis in axes_tried(removal, use):
        counts = stays.sum(axis)
        count = int(counts.flat[0])
        if count and (counts == count).all():
            return count if axis == use.axis else int(labels.shape[use.axis])
    return None


def axes_tried(removal: Removal, use: SizeUse) -> Iterable[int]:
    """The axes of a use's labels that may become narrower: the one that was chosen, then the innermost ones first."""
    for parts in removal.graph.parts:
        if parts.op == use.op and parts.grid.shape == use.labels.shape:
            axis = removal.problem.axis_of(parts)
            return range(use.labels.ndim)[::-1] if axis is None else (axis,)
    return range(use.labels.ndim)[::-1]


class Solver:
    """Finds values of attributes by which every use has the size that it needs."""

    def __init__(self, removal: Removal, needed: Mapping[int, int]):
        self.removal = removal
        self.needed = needed
        self.values: Values = {}
        self.of_attribute: dict[IntegerAttribute, list[int]] = {}
        uses = removal.graph.uses
        self.attributes = {place: attributes_of(uses[place].size) for place in needed}
        for place, attributes in self.attributes.items():
            for attribute in attributes:
                self.of_attribute.setdefault(attribute, []).append(place)

    def solve(self) -> AttributeValues:
        """The values, and what stands against others."""
        wrong = {place for place in self.needed if not self.fits(place, {})}
        if not wrong:
            return AttributeValues()
        links = {self.link_to_width(place) for place in wrong} - {()}
        before = -1
        while before < len(self.values):
            before = len(self.values)
            for attribute, places in self.of_attribute.items():
                if attribute not in self.values and (alone := self.alone(attribute, places)):
                    options = self.options(attribute, alone)
                    links |= set() if options else self.links_of(alone)
                    self.values[attribute] = best(attribute, options)
        for place in sorted(wrong):
            self.decide_alone(place)
        unclear = {each for place in wrong if not self.fits(place, self.values) for each in self.attributes[place]}
        return AttributeValues(self.values, frozenset(links), frozenset(unclear), tuple(sorted(wrong)))

    def fits(self, place: int, values: Values) -> bool:
        """Whether a use has the size that it needs."""
        size = self.removal.graph.uses[place].size
        return evaluate(size, values, self.removal.count_kept) == self.needed[place]

    def alone(self, attribute: IntegerAttribute, places: Iterable[int]) -> list[int]:
        """The uses in which an attribute is the only one without a value."""
        return [place for place in places if all(a in self.values for a in self.attributes[place] - {attribute})]

    def options(self, attribute: IntegerAttribute, places: Iterable[int]) -> list[int]:
        """The values of an attribute below its own with which all these uses fit, or its own if it does."""
        places = list(places)
        if all(self.fits(place, self.values) for place in places):
            return [attribute.value]
        tried = range(attribute.value - 1, -1, -1) if attribute.value <= WIDEST else ()
        return [
            value for value in tried if all(self.fits(place, {**self.values, attribute: value}) for place in places)
        ]

    def decide_alone(self, place: int) -> None:
        """Give a value to the only attribute of a use, among several without one, that can make it fit."""
        if self.fits(place, self.values):
            return
        free = [each for each in self.attributes[place] if each not in self.values]
        options = {each: found for each in free if (found := self.options(each, self.of_attribute[each]))}
        if len(options) == 1:
            ((attribute, values),) = options.items()
            self.values[attribute] = best(attribute, values)

    def links_of(self, places: Iterable[int]) -> set[Link]:
        """Uses of the same size among some that would need different ones."""
        uses = self.removal.graph.uses
        found: dict[object, list[int]] = {}
        for place in places:
            found.setdefault((uses[place].size, uses[place].rows.shape[1]), []).append(place)
        return {tuple(same) for same in found.values() if len({self.needed[place] for place in same}) > 1}

    def link_to_width(self, place: int) -> Link:
        """A use whose size is the width of another tensor, with which it must keep equally many channels."""
        use = self.removal.graph.uses[place]
        same = isinstance(use.size, Width) and use.size.labels.size == use.rows.shape[1]
        return (place,) if same else ()


def best(attribute: IntegerAttribute, options: list[int]) -> int:
    """The value among those that give the same sizes: its own, else one that keeps the most of its divisors."""
    if not options or attribute.value in options:
        return attribute.value
    return max(options, key=lambda value: (np.gcd(value, attribute.value), value))


def linked_divisions(graph: ChannelGraph, sets: np.ndarray, links: Iterable[Link]) -> list[Division]:
    """The divisions by which uses of one size keep equally many channels."""
    found = []
    for link in sorted(links):
        uses = [graph.uses[place] for place in link]
        rows = [use.rows for use in uses]
        rows += [use.size.labels.reshape(1, -1) for use in uses if isinstance(use.size, Width)]
        numbers = sets[np.concatenate(rows)].astype(np.int64)
        found.append(Division(np.unique(numbers, axis=0), Reason(Kind.EQUAL_PARTS, graph.ops[uses[0].op].place)))
    return found


def named(removal: Removal, values: AttributeValues, pin: ExtraPin) -> ExtraPin:
    """A pin whose reason says from which attributes the code takes the widths that must stay, if that is known."""
    labels, reason = pin
    if reason.kind not in (Kind.CODE, Kind.CODE_AROUND, Kind.SPLIT):
        return pin
    members = np.zeros(removal.removed.size, dtype=bool)
    members[removal.sets[labels]] = True
    uses = [removal.graph.uses[place] for place in values.changing]
    attributes = {each for use in uses if members[removal.sets[use.labels]].any() for each in attributes_of(use.size)}
    if not attributes:
        return pin
    kind = Kind.UNCLEAR_ATTRIBUTE if attributes <= values.unclear and len(attributes) > 1 else Kind.ATTRIBUTE
    return labels, Reason(kind, reason.place, ", ".join(sorted(map(str, attributes))))
