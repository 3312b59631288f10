"""Compare the slim network with the dense one step by step: each channel must be computed from the same channels.

Channel sets are not enough, since they do not say which op is applied to which channel:
`cat([x[:, ::2].relu(), x[:, 1::2]])` joins no channels, but in a narrower x other channels have even positions.
"""

from collections.abc import Sequence

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph, Depthwise, Norm, Op, Pin, Pointwise, Reader, Step
from slimnet.graph.labels import Labels, labels_among, varying_axes
from slimnet.graph.reasons import Reason
from slimnet.planning.channel_order import MixedChannelsError, Orders
from slimnet.planning.constants import ELEMENTWISE
from slimnet.planning.removal import Removal
from slimnet.tracing.ops.registry import spec_of

ODD = np.random.default_rng(0).integers(1, 1 << 62, 64, dtype=np.int64) | 1
"""Odd factors that hash the labels of a step's operands to one number, modulo 2⁶⁴."""


def check_steps(removal: Removal, slim: ChannelGraph, orders: Orders) -> None:
    """Compare the steps of both networks if any op moves, divides or reduces channels.

    Raises:
        MixedChannelsError: a channel is computed from other channels than in the dense network.
    """
    graph = removal.graph
    check_sums(removal, slim)
    ours, theirs = call_positions(graph), call_positions(slim)
    check_views(removal, slim, ours, theirs)
    if not graph.parts and not graph.sums and all(spec_of(op.name).width_free for op in graph.ops if op.touched):
        return
    checker = StepChecker(removal, slim, orders)
    # An op records as many steps in both networks, unless an axis of length 1 has no channels in the slim one.
    narrow_steps = steps_by_call(slim, theirs)
    for call, steps in steps_by_call(graph, ours).items():
        others = narrow_steps.get(call, [])
        if list(map(type, steps)) == list(map(type, others)):
            for dense, narrow in zip(steps, others, strict=True):
                checker.check_step(dense, narrow)
    stayed = pins_by_call(slim, theirs)
    for key, pins in pins_by_call(graph, ours).items():
        checker.check_pins(pins, stayed.get(key, []))


def check_sums(removal: Removal, slim: ChannelGraph) -> None:
    """Check that every channel reduction reduces the kept channels.

    Raises:
        MixedChannelsError: the code reduces other channels.
    """
    sizes = [total.rows.shape for total in slim.sums]
    for place, total in enumerate(removal.graph.sums):
        removed = removal.is_removed(total.rows)
        left = (~removed).sum(1)
        same = (left == left[0]).all() and place < len(sizes) and sizes[place] == (left.size, left[0])
        if removed.any() and not same:
            raise MixedChannelsError(removal.sets[total.rows], str(total.where.place))


def check_views(removal: Removal, slim: ChannelGraph, ours: Sequence[int], theirs: Sequence[int]) -> None:
    """Check that each view has the shape of the dense one, without the removed channels.

    `ours` and `theirs` are the `call_positions` of both. Otherwise the last axis of a `view(n, 4, -1)` would change
    with the number of channels, if the size of the input happens to allow it.

    Raises:
        MixedChannelsError: an axis has another size.
    """
    narrow_views = views_by_call(slim, theirs)
    for place, views in views_by_call(removal.graph, ours).items():
        others = narrow_views.get(place, [])
        for dense, narrow in zip(views, others, strict=True) if len(views) == len(others) else ():
            expected = shape_left(removal, dense)
            if len(expected) != len(narrow.shape) or any(
                size not in (None, found) for size, found in zip(expected, narrow.shape, strict=True)
            ):
                raise MixedChannelsError(removal.sets[labels_among(dense.touched)], str(dense))


def views_by_call(graph: ChannelGraph, positions: Sequence[int]) -> dict[int, list[Op]]:
    """The views of channels, by their position among the ops that `called` lists."""
    found: dict[int, list[Op]] = {}
    for op, place in zip(graph.ops, positions, strict=False):
        if op.shape:
            found.setdefault(place, []).append(op)
    return found


def shape_left(removal: Removal, view: Op) -> list[int | None]:
    """The shape that a view must have in the slim network; None for axes that share channels."""
    shape: list[int | None] = list(view.shape)
    for face in view.touched[len(view.touched) // 2 :]:
        axes = varying_axes(face)
        for axis in axes:
            shape[axis] = removal.count_kept(face.reshape(-1)) if len(axes) == 1 else None
    return shape


def steps_by_call(graph: ChannelGraph, positions: Sequence[int]) -> dict[int, list[Step]]:
    """The steps of each op, by its position among the ops that `called` lists."""
    found: dict[int, list[Step]] = {}
    for step, op in zip(graph.steps, graph.step_ops, strict=True):
        found.setdefault(positions[op], []).append(step)
    return found


def pins_by_call(graph: ChannelGraph, positions: Sequence[int]) -> dict[tuple[int, Reason], list[Pin]]:
    """The pins of each op for one reason, by its position among the ops that `called` lists, and the reason."""
    found: dict[tuple[int, Reason], list[Pin]] = {}
    for pin in graph.pins:
        found.setdefault((positions[pin.op], pin.reason), []).append(pin)
    return found


def call_positions(graph: ChannelGraph) -> list[int]:
    """For each op the number of ops before it that `called` lists; last, their total."""
    return np.cumsum([0, *(not spec_of(op.name).layout_dependent for op in graph.ops)]).tolist()


class StepChecker:
    """Maps slim labels to dense ones: `origin[label]` is a label of the dense network, 0 where it is not known.

    Dense channels computed from the same channels by the same step are equal: `alike[label]` is the first of them.
    """

    def __init__(self, removal: Removal, slim: ChannelGraph, orders: Orders):
        self.sets = removal.sets
        pairs = zip(removal.graph.readers, orders.inputs, orders.outputs, strict=True)
        self.orders = {id(reader): (inputs, outputs) for reader, inputs, outputs in pairs}
        self.filters = {key[0]: order for key, order in orders.axes.items() if key[1] == 0}
        self.origin = np.zeros(slim.size, dtype=np.int64)
        self.alike = np.arange(removal.graph.size)
        for total, other in zip(removal.graph.sums, slim.sums, strict=False):
            if total.out.size == other.out.size:
                self.origin[other.out] = total.out
        ours, theirs = computed_labels(removal.graph), computed_labels(slim)
        for key, order in orders.axes.items():
            dense, narrow = removal.graph.vectors[key][order], slim.vectors[key]
            # An axis of length 1 may have the label of its operand in the slim network, and its own in the dense one.
            if np.array_equal(ours[dense], theirs[narrow]):
                self.origin[narrow] = dense

    def check_step(self, dense: Step, narrow: Step) -> None:
        """Check that each channel of a step is computed from the same channels."""
        if isinstance(dense, Reader) and isinstance(narrow, Reader):
            self.check_reader(dense, narrow)
        elif isinstance(dense, Depthwise) and isinstance(narrow, Depthwise):
            self.check_depthwise(dense, narrow)
        elif isinstance(dense, ELEMENTWISE) and isinstance(narrow, ELEMENTWISE) and same_arity(dense, narrow):
            positions = self.match_positions(dense.operands, narrow.operands, dense.out)
            self.map_channels(narrow.out, np.where(positions < 0, 0, dense.out[positions]))

    def check_reader(self, dense: Reader, narrow: Reader) -> None:
        """Check that a layer reads its channels in the order of its weight."""
        inputs, outputs = self.orders[id(dense)]
        expected, found = self.alike[dense.inputs[inputs]], self.origin[narrow.inputs]
        if found.size == expected.size and ((found > 0) & (found != expected)).any():
            raise MixedChannelsError(self.sets[dense.inputs], dense.module)
        self.map_channels(narrow.outputs, dense.outputs[outputs])

    def check_depthwise(self, dense: Depthwise, narrow: Depthwise) -> None:
        """Check that a depthwise convolution applies each filter to its own channel."""
        times = dense.outputs.size // dense.inputs.size
        order = self.filters.get(dense.weight or "")
        if order is None:
            self.match_computed_filters(dense, narrow, times)
            return
        if order.size != narrow.outputs.size or order.size != narrow.inputs.size * times:
            return
        expected, found = self.alike[dense.inputs[order // times]], np.repeat(self.origin[narrow.inputs], times)
        if ((found > 0) & (expected > 0) & (found != expected)).any():
            raise MixedChannelsError(self.sets[dense.inputs], dense.module)
        self.map_channels(narrow.outputs, dense.outputs[order])

    def match_computed_filters(self, dense: Depthwise, narrow: Depthwise, times: int) -> None:
        """Match a depthwise convolution whose filters are computed: equal channels cannot be distinguished."""
        positions = self.match_positions([dense.inputs], [narrow.inputs], dense.inputs)
        _, first, often = np.unique(self.alike[dense.inputs], return_index=True, return_counts=True)
        positions[np.isin(positions, first[often > 1])] = -1
        if narrow.outputs.size == positions.size * times:
            rows = dense.outputs.reshape(-1, times)[positions]
            self.map_channels(narrow.outputs, np.where(positions[:, None] < 0, 0, rows).reshape(-1))

    def check_pins(self, dense: Sequence[Pin], narrow: Sequence[Pin]) -> None:
        """Check that the same channels are pinned: network outputs, and channels mixed by an op.

        An axis of length 1 may lack its pin; then all pins are compared jointly.
        """
        if len(dense) == len(narrow):
            pairs = [(one.labels, other.labels) for one, other in zip(dense, narrow, strict=True)]
        else:
            pairs = [(labels_of_pins(dense), labels_of_pins(narrow))]
        for labels, others in pairs:
            found = self.origin[others]
            if not np.isin(found[found > 0], self.alike[labels]).all():
                raise MixedChannelsError(self.sets[np.append(labels, found)], "")

    def match_positions(self, dense: Sequence[Labels], narrow: Sequence[Labels], out: Labels) -> np.ndarray:
        """The position in the dense step of each slim channel with the same operands; -1 where one is not known."""
        ours = hash_labels([self.alike[labels] for labels in dense])
        found = [self.origin[labels] for labels in narrow]
        theirs = hash_labels(found)
        unknown = lacks_label(found, dense)
        order = np.argsort(ours, kind="stable")
        ordered = ours[order]
        # Channels without labels, such as an image's, are not equal for that reason.
        named = ~lacks_label(dense)[order]
        self.note_alike(ordered[named], out[order[named]])
        place = np.minimum(np.searchsorted(ordered, theirs), ours.size - 1)
        strange = ~unknown & (ordered[place] != theirs)
        if strange.any():
            touched = np.concatenate([*dense, *(origin[strange] for origin in found)])
            raise MixedChannelsError(self.sets[touched], "")
        return np.where(unknown, -1, order[place])

    def note_alike(self, keys: np.ndarray, out: Labels) -> None:
        """Record which of a step's channels are computed from the same ones; `keys` are sorted."""
        again = np.flatnonzero(keys[1:] == keys[:-1]) + 1
        if again.size:
            first = np.arange(keys.size)
            first[again] = 0
            self.alike[out] = self.alike[out[np.maximum.accumulate(first)]]

    def map_channels(self, narrow: Labels, dense: Labels) -> None:
        """Map slim channels to dense ones, 0 where they are not known.

        Raises:
            MixedChannelsError: a channel is mapped to another one already.
        """
        dense = self.alike[dense]
        before = self.origin[narrow]
        if ((before > 0) & (dense > 0) & (self.alike[before] != dense)).any():
            raise MixedChannelsError(self.sets[dense], "")
        self.origin[narrow] = np.where(dense > 0, dense, before)


def labels_of_pins(pins: Sequence[Pin]) -> Labels:
    """The labels of several pins."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *(pin.labels for pin in pins)])


def computed_labels(graph: ChannelGraph) -> np.ndarray:
    """For every label whether a step computes it."""
    found = np.zeros(graph.size, dtype=bool)
    for step in graph.steps:
        found[step.out if isinstance(step, ELEMENTWISE) else step.outputs] = True
    return found


def lacks_label(operands: Sequence[Labels], like: Sequence[Labels] | None = None) -> np.ndarray:
    """Where an operand has no label, although it (or its counterpart in `like`) has labels elsewhere."""
    pairs = zip(operands, operands if like is None else like, strict=True)
    return np.any([(labels == 0) & known.any() for labels, known in pairs], axis=0)


def same_arity(dense: Pointwise | Norm, narrow: Pointwise | Norm) -> bool:
    """Whether two steps have the same number of operands."""
    return len(dense.operands) == len(narrow.operands)


def hash_labels(labels: Sequence[Labels]) -> np.ndarray:
    """A hash of the operands' labels at each position."""
    if len(labels) == 1:
        return labels[0]
    total = np.zeros(labels[0].size, dtype=np.int64)
    for place, each in enumerate(labels):
        total += each * ODD[place % ODD.size]
    return total
