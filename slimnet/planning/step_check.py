"""Follow every channel of the slim network through its code, step by step, beside the one it was.

Sets say which channels are cut together, not what is done to each of them: `cat([x[:, ::2].relu(), x[:, 1::2]])` joins
no channels, but in a narrower x other ones are the even ones. So each step of the slim network must compute each
channel from the same channels as that step of the dense one.
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
"""Factors that make one number of the labels that meet in a step; they wrap around."""


def check_steps(removal: Removal, slim: ChannelGraph, orders: Orders) -> None:
    """Compare the steps of both networks, where there is code that moves, divides or adds up channels.

    Raises:
        MixedChannelsError: a channel meets others than it did.
    """
    graph = removal.graph
    check_sums(removal, slim)
    ours, theirs = places_of(graph), places_of(slim)
    check_views(removal, slim, ours, theirs)
    if not graph.parts and not graph.sums and all(spec_of(op.name).width_free for op in graph.ops if op.touched):
        return
    follower = StepChecker(removal, slim, orders)
    # What an op records is the same in both networks, unless an axis with one position left shows no channels.
    narrow_steps = steps_by_call(slim, theirs)
    for call, steps in steps_by_call(graph, ours).items():
        others = narrow_steps.get(call, [])
        if list(map(type, steps)) == list(map(type, others)):
            for dense, narrow in zip(steps, others, strict=True):
                follower.step(dense, narrow)
    stayed = pins_by_call(slim, theirs)
    for key, pins in pins_by_call(graph, ours).items():
        follower.stay(pins, stayed.get(key, []))


def check_sums(removal: Removal, slim: ChannelGraph) -> None:
    """As many sums are made of as many of the channels that are left.

    Raises:
        MixedChannelsError: the code adds up others.
    """
    sizes = [total.rows.shape for total in slim.sums]
    for place, total in enumerate(removal.graph.sums):
        gone = removal.gone(total.rows)
        left = (~gone).sum(1)
        same = (left == left[0]).all() and place < len(sizes) and sizes[place] == (left.size, left[0])
        if gone.any() and not same:
            raise MixedChannelsError(removal.sets[total.rows], str(total.where.place))


def check_views(removal: Removal, slim: ChannelGraph, ours: Sequence[int], theirs: Sequence[int]) -> None:
    """Each view makes axes of the same sizes as in the dense network, less the channels that go.

    `ours` and `theirs` are what `places_of` says of the two. Where the code asks for `view(n, 4, -1)`, the last axis
    would otherwise take what the channels have lost, as long as the size of the input happens to allow it.

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


def views_by_call(graph: ChannelGraph, places: Sequence[int]) -> dict[int, list[Op]]:
    """The views of channels, by their place among the ops that `called` lists."""
    found: dict[int, list[Op]] = {}
    for op, place in zip(graph.ops, places, strict=False):
        if op.shape:
            found.setdefault(place, []).append(op)
    return found


def shape_left(removal: Removal, view: Op) -> list[int | None]:
    """The shape that a view must have in the slim network; None for axes between which channels are divided."""
    shape: list[int | None] = list(view.shape)
    for face in view.touched[len(view.touched) // 2 :]:
        axes = varying_axes(face)
        for axis in axes:
            shape[axis] = removal.left(face.reshape(-1)) if len(axes) == 1 else None
    return shape


def steps_by_call(graph: ChannelGraph, places: Sequence[int]) -> dict[int, list[Step]]:
    """The steps of each op, by its place among the ops that `called` lists."""
    found: dict[int, list[Step]] = {}
    for step, op in zip(graph.steps, graph.step_ops, strict=True):
        found.setdefault(places[op], []).append(step)
    return found


def pins_by_call(graph: ChannelGraph, places: Sequence[int]) -> dict[tuple[int, Reason], list[Pin]]:
    """The pins of each op for one reason, by its place among the ops that `called` lists, and the reason."""
    found: dict[tuple[int, Reason], list[Pin]] = {}
    for pin in graph.pins:
        found.setdefault((places[pin.op], pin.reason), []).append(pin)
    return found


def places_of(graph: ChannelGraph) -> list[int]:
    """For each op how many ops that `called` lists come before it, and how many there are."""
    return np.cumsum([0, *(not spec_of(op.name).layout_dependent for op in graph.ops)]).tolist()


class StepChecker:
    """What the channels of the slim network were: `was[label]` is a label of the dense network, 0 where not known.

    Dense channels computed from the same channels by the same step are alike: `alike[label]` is the first of them.
    """

    def __init__(self, removal: Removal, slim: ChannelGraph, orders: Orders):
        self.sets = removal.sets
        pairs = zip(removal.graph.readers, orders.inputs, orders.outputs, strict=True)
        self.orders = {id(reader): (inputs, outputs) for reader, inputs, outputs in pairs}
        self.filters = {key[0]: order for key, order in orders.axes.items() if key[1] == 0}
        self.was = np.zeros(slim.size, dtype=np.int64)
        self.alike = np.arange(removal.graph.size)
        for total, other in zip(removal.graph.sums, slim.sums, strict=False):
            if total.out.size == other.out.size:
                self.was[other.out] = total.out
        ours, theirs = computed(removal.graph), computed(slim)
        for key, order in orders.axes.items():
            dense, narrow = removal.graph.vectors[key][order], slim.vectors[key]
            # A weight that is left with one channel may have the label of what it reads, where it had its own.
            if np.array_equal(ours[dense], theirs[narrow]):
                self.was[narrow] = dense

    def step(self, dense: Step, narrow: Step) -> None:
        """Each channel that a step computes comes from the same channels."""
        if isinstance(dense, Reader) and isinstance(narrow, Reader):
            self.read(dense, narrow)
        elif isinstance(dense, Depthwise) and isinstance(narrow, Depthwise):
            self.filter(dense, narrow)
        elif isinstance(dense, ELEMENTWISE) and isinstance(narrow, ELEMENTWISE) and same_arity(dense, narrow):
            places = self.places(dense.operands, narrow.operands, dense.out)
            self.learn(narrow.out, np.where(places < 0, 0, dense.out[places]))

    def read(self, dense: Reader, narrow: Reader) -> None:
        """A layer reads the channels that its weight is in order for."""
        inputs, outputs = self.orders[id(dense)]
        expected, found = self.alike[dense.inputs[inputs]], self.was[narrow.inputs]
        if found.size == expected.size and ((found > 0) & (found != expected)).any():
            raise MixedChannelsError(self.sets[dense.inputs], dense.module)
        self.learn(narrow.outputs, dense.outputs[outputs])

    def filter(self, dense: Depthwise, narrow: Depthwise) -> None:
        """A depthwise convolution computes some channels from each, by filters that are each channel's own."""
        times = dense.outputs.size // dense.inputs.size
        order = self.filters.get(dense.weight or "")
        if order is None:
            self.filter_alike(dense, narrow, times)
            return
        if order.size != narrow.outputs.size or order.size != narrow.inputs.size * times:
            return
        expected, found = self.alike[dense.inputs[order // times]], np.repeat(self.was[narrow.inputs], times)
        if ((found > 0) & (expected > 0) & (found != expected)).any():
            raise MixedChannelsError(self.sets[dense.inputs], dense.module)
        self.learn(narrow.outputs, dense.outputs[order])

    def filter_alike(self, dense: Depthwise, narrow: Depthwise, times: int) -> None:
        """A depthwise convolution by computed filters: equal channels cannot be distinguished."""
        places = self.places([dense.inputs], [narrow.inputs], dense.inputs)
        _, first, often = np.unique(self.alike[dense.inputs], return_index=True, return_counts=True)
        places[np.isin(places, first[often > 1])] = -1
        if narrow.outputs.size == places.size * times:
            rows = dense.outputs.reshape(-1, times)[places]
            self.learn(narrow.outputs, np.where(places[:, None] < 0, 0, rows).reshape(-1))

    def stay(self, dense: Sequence[Pin], narrow: Sequence[Pin]) -> None:
        """What is seen from outside, or mixed by an op, are the same channels.

        An axis with one position left may lack its pin: then the others are looked at together.
        """
        if len(dense) == len(narrow):
            pairs = [(one.labels, other.labels) for one, other in zip(dense, narrow, strict=True)]
        else:
            pairs = [(together(dense), together(narrow))]
        for labels, others in pairs:
            found = self.was[others]
            if not np.isin(found[found > 0], self.alike[labels]).all():
                raise MixedChannelsError(self.sets[np.append(labels, found)], "")

    def places(self, dense: Sequence[Labels], narrow: Sequence[Labels], out: Labels) -> np.ndarray:
        """Where in the dense step stand the channels that meet in the slim one; -1 where one of them is not known."""
        ours = combined([self.alike[labels] for labels in dense])
        found = [self.was[labels] for labels in narrow]
        theirs = combined(found)
        unknown = lacking(found, dense)
        order = np.argsort(ours, kind="stable")
        ordered = ours[order]
        # Channels without a label, such as an image's, are not alike for that.
        named = ~lacking(dense)[order]
        self.note_alike(ordered[named], out[order[named]])
        place = np.minimum(np.searchsorted(ordered, theirs), ours.size - 1)
        strange = ~unknown & (ordered[place] != theirs)
        if strange.any():
            touched = np.concatenate([*dense, *(was[strange] for was in found)])
            raise MixedChannelsError(self.sets[touched], "")
        return np.where(unknown, -1, order[place])

    def note_alike(self, keys: np.ndarray, out: Labels) -> None:
        """Remember which of a step's channels come from the same ones; `keys` are in order."""
        again = np.flatnonzero(keys[1:] == keys[:-1]) + 1
        if again.size:
            first = np.arange(keys.size)
            first[again] = 0
            self.alike[out] = self.alike[out[np.maximum.accumulate(first)]]

    def learn(self, narrow: Labels, dense: Labels) -> None:
        """These slim channels were those dense ones, 0 where it is not known which."""
        dense = self.alike[dense]
        before = self.was[narrow]
        if ((before > 0) & (dense > 0) & (self.alike[before] != dense)).any():
            raise MixedChannelsError(self.sets[dense], "")
        self.was[narrow] = np.where(dense > 0, dense, before)


def together(pins: Sequence[Pin]) -> Labels:
    """The labels of several pins."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *(pin.labels for pin in pins)])


def computed(graph: ChannelGraph) -> np.ndarray:
    """Which labels are what a step computes."""
    found = np.zeros(graph.size, dtype=bool)
    for step in graph.steps:
        found[step.out if isinstance(step, ELEMENTWISE) else step.outputs] = True
    return found


def lacking(operands: Sequence[Labels], like: Sequence[Labels] | None = None) -> np.ndarray:
    """Where one of some operands has no label, though that operand (or what it is `like`) has labels elsewhere."""
    pairs = zip(operands, operands if like is None else like, strict=True)
    return np.any([(labels == 0) & known.any() for labels, known in pairs], axis=0)


def same_arity(dense: Pointwise | Norm, narrow: Pointwise | Norm) -> bool:
    """Whether two steps compute from as many operands."""
    return len(dense.operands) == len(narrow.operands)


def combined(labels: Sequence[Labels]) -> np.ndarray:
    """One number for the labels that meet at each position."""
    if len(labels) == 1:
        return labels[0]
    total = np.zeros(labels[0].size, dtype=np.int64)
    for place, each in enumerate(labels):
        total += each * ODD[place % ODD.size]
    return total
