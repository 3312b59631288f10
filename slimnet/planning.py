"""make_plan: decide what goes, check the network's own code against it, and write it down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from slimnet.calculus.constants import Needs, needs, propagate
from slimnet.calculus.crossing import Crossing
from slimnet.calculus.following import check_steps
from slimnet.calculus.matching import MixedChannelsError, match
from slimnet.calculus.narrowing import foreseen, is_plain, measured, natural_orders, unchanged
from slimnet.calculus.packing import Packing, find_packable, pack, packed_sets, require_equal_parts
from slimnet.calculus.removal import Removal, removable
from slimnet.calculus.rounding import Multiples, Rounding
from slimnet.calculus.settling import better_crossings, lone, settle
from slimnet.calculus.turning import ExtraPin, Turns, new_places
from slimnet.calculus.writing import write_plan
from slimnet.garbage import collection_paused
from slimnet.graph import ChannelGraph, Depthwise, Op
from slimnet.inputs import ExampleInputs, Inputs
from slimnet.plan import SurgeryPlan
from slimnet.reasons import Kind, Place, Reason
from slimnet.refit import refit, set_features, set_padding
from slimnet.skeleton import gather, skeleton
from slimnet.sparsity import DeadChannels
from slimnet.trace import InterruptedForwardError, trace_structure
from slimnet.tracing.labels import Labels, distinct, labels_among

MAX_ROUNDS = 60
"""How often a plan is made again because the network's code did not follow the last one."""

SIZED = frozenset(
    [
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "expand",
        "split",
        "split_with_sizes",
        "slice",
        "select",
        "unbind",
        "cat",
        "constant_pad_nd",
        "repeat",
        "as_strided",
        "slice_scatter",
        "select_scatter",
    ]
)
"""Ops that take sizes or positions, which may be numbers written into the network's code."""


@dataclass(frozen=True)
class Draft:
    """A removal with the new groups of its grouped convolutions, and what was made equal in all divisions at once."""

    removal: Removal
    packings: tuple[Packing, ...]
    crossings: tuple[Crossing, ...]

    @property
    def rows(self) -> list[Sequence[int]]:
        """The sets that change places, in their new order: those of packed groups and of turned grids."""
        packed = [side for packing in self.packings for side in (packing.inputs, packing.outputs)]
        return [*packed, *new_places(self.removal)]


@dataclass(frozen=True)
class Basis:
    """What a plan is made from: the graph, what is dead, the constants that follow, and what is needed of them.

    `pins` are labels that stay for reasons of the caller's; without `packed` grouped convolutions keep their groups.
    """

    graph: ChannelGraph
    dead: DeadChannels
    constants: np.ndarray
    needs: Needs
    pins: tuple[ExtraPin, ...] = ()
    packed: bool = True


@torch.inference_mode(False)
@collection_paused()
def make_plan(
    model: nn.Module,
    example_inputs: ExampleInputs | Inputs,
    graph: ChannelGraph,
    dead: DeadChannels,
    *,
    tried: bool = True,
    rounding: Rounding | None = None,
) -> SurgeryPlan:
    """The largest removal that leaves the network's function unchanged, as a plan; less what `rounding` keeps of it.

    The draft is tried on a skeleton: where the network's own code does not follow its narrower channels (numbers
    written into it), what that code touches is pinned and the plan is made again. Without `tried` a network of plain
    ops is trusted to follow, which saves a third of the time; its forward raises where it does not.
    """
    dead_outputs = np.array(dead.outputs, dtype=np.int64)
    constants = propagate(graph, dead.scales, dead_outputs)
    basis = Basis(graph, dead, constants, needs(graph, constants, dead_outputs))
    return plan_from(basis, model, Inputs.of(example_inputs), tried=tried, rounding=rounding or Rounding())


def plan_from(basis: Basis, model: nn.Module, inputs: Inputs, *, tried: bool, rounding: Rounding) -> SurgeryPlan:
    """The largest removal for what is known of a network, as `make_plan` makes it."""
    graph, dead, constants, needed = basis.graph, basis.dead, basis.constants, basis.needs
    rounding.check_against(graph)
    tensors, network = graph.tensors, type(model).__name__
    pins = list(basis.pins)
    turns = Turns()
    if any(len(parts.free) > 1 for parts in graph.parts):
        turns.begin(removable(graph, constants, needed, pins))
    packing_allowed = basis.packed
    paired: frozenset[int] = frozenset()
    uncrossed: set[int] = set()
    blamed: list[Op] = []
    for _ in range(MAX_ROUNDS):
        start = removable(graph, constants, needed, pins, turns.chosen)
        start.paired, start.blamed = paired, turns.blamed
        draft = make_draft(start, packing_allowed, rounding, frozenset(uncrossed))
        removal = draft.removal
        if idle := turns.give_up(removal):
            pins += idle
            continue
        if not removal.removed.any():
            narrow = unchanged(tensors.parameters, graph)
            return write_plan(network, tensors, narrow, removal, natural_orders(removal), dead, str(rounding))
        if not tried and is_plain(graph):
            narrow = foreseen(tensors.parameters, removal)
            return write_plan(network, tensors, narrow, removal, natural_orders(removal), dead, str(rounding))
        try:
            structure, slim = trace_slim(model, inputs, draft)
            orders = match(removal, slim, draft.rows)
            check_steps(removal, slim, orders)
            return write_plan(network, tensors, measured(structure, slim), removal, orders, dead, str(rounding))
        except MixedChannelsError as mixed:
            if draft.packings and packing_allowed:
                packing_allowed = False
            elif crossed := crossed_by(draft, mixed.sets):
                uncrossed |= crossed
            elif alone := lone(removal, mixed.sets):
                paired |= alone
            else:
                pin = turns.turn(removal, mixed.sets, len(graph.ops), pin_sets(removal, mixed.sets, mixed.where))
                pins += [] if pin is None else [pin]
        except InterruptedForwardError as stop:
            touched = concerned_by(graph, removal, stop)
            if alone := lone(removal, touched):
                paired |= alone
                continue
            pin = turns.turn(removal, touched, stop.position, pin_op(graph, removal, stop, blamed))
            pins += [] if pin is None else [pin]
    reason = Reason(Kind.CODE)
    removal = removable(graph, constants, needed, [(np.arange(1, graph.size), reason)])
    narrow = unchanged(tensors.parameters, graph)
    return write_plan(network, tensors, narrow, removal, natural_orders(removal), dead, str(rounding))


def make_draft(removal: Removal, packing_allowed: bool, rounding: Rounding, uncrossed: frozenset[int]) -> Draft:
    """Settle a removal: equal parts, carriers, last channels, round widths, packed groups.

    `uncrossed` are the first sets of crossings that did not work out, whose divisions are made equal one by one.
    """
    packable = find_packable(removal) if packing_allowed else set()
    require_equal_parts(removal, packable)
    crossings = better_crossings(removal, uncrossed) if removal.equal else []
    multiples = Multiples.of_layers(removal, rounding)
    removal.widths = multiples.widths(packed_sets(removal, packable))
    settle(removal, crossings)
    packings = pack(removal, packable, multiples)
    settle(removal, crossings)
    return Draft(removal, tuple(packings), tuple(crossings))


def crossed_by(draft: Draft, sets: np.ndarray) -> set[int]:
    """The first sets of the crossings that have some sets in them."""
    return {crossing.first for crossing in draft.crossings if np.isin(crossing.sets, sets).any()}


def trace_slim(model: nn.Module, inputs: Inputs, draft: Draft) -> tuple[nn.Module, ChannelGraph]:
    """Trace the network once more with every tensor at its new size; returns its skeleton too.

    Raises:
        InterruptedForwardError: its forward raised.
    """
    graph = draft.removal.graph
    tensors = gather(model)
    shapes = new_shapes(tensors.named, draft)
    groups = {graph.readers[p.reader].weight or "": len(p.bins) for p in draft.packings}
    structure = skeleton(model, tensors.named, shapes)
    refit(structure.module, groups)
    for padding in graph.paddings:
        before, after = draft.removal.left(padding.before), draft.removal.left(padding.after)
        set_padding(structure.module, padding.module, before, after)
    for module, labels in graph.counted:
        set_features(structure.module, module, draft.removal.left(labels))
    depthwise = [isinstance(layer, Depthwise) for layer in graph.layers]
    return structure.module, trace_structure(structure, tensors, inputs, depthwise)


def new_shapes(tensors: Mapping[str, torch.Tensor], draft: Draft) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that changes."""
    removal, graph = draft.removal, draft.removal.graph
    shapes: dict[str, tuple[int, ...]] = {}
    for (name, axis), labels in graph.vectors.items():
        kept = removal.left(labels)
        if kept != labels.size:
            shape = list(shapes.get(name, tensors[name].shape))
            shape[axis] = kept
            shapes[name] = tuple(shape)
    packed = {packing.reader: packing for packing in draft.packings}
    for index, reader in enumerate(graph.readers):
        if reader.groups > 1 and reader.weight is not None:
            groups = len(packed[index].bins) if index in packed else reader.groups
            kept = removal.left(reader.inputs if reader.in_axis == 1 else reader.outputs)
            shape = list(shapes.get(reader.weight, tensors[reader.weight].shape))
            shape[1] = kept // groups
            shapes[reader.weight] = tuple(shape)
    return shapes


def pin_sets(removal: Removal, sets: np.ndarray, where: str) -> ExtraPin:
    """Pin whole sets; where none of them was removed, what is around them."""
    members = np.isin(removal.sets, sets)
    place = next((op.place for op in removal.graph.ops if str(op) == where), Place(module=where))
    if not place.op:
        # A layer saw it, but the number stands in a line before that.
        moved = (op for op in removal.graph.ops if op.name in SIZED)
        place = next((op.place for op in moved if members[labels_of([op])].any()), place)
    reason = Reason(Kind.CODE_AROUND, place)
    if removal.removed[sets].any():
        labels = np.flatnonzero(members)
        return labels[labels > 0], reason
    module = next((op.module for op in removal.graph.ops if members[labels_of([op])].any()), "")
    return labels_around(removal, module), reason


def labels_around(removal: Removal, module: str) -> Labels:
    """What the ops of a module touch, or those of a module around it: of the first where anything was to go."""
    graph = removal.graph
    while module:
        touched = labels_of([op for op in graph.ops if op.module == module or op.module.startswith(f"{module}.")])
        if removal.gone(touched).any():
            return touched
        module = module.rpartition(".")[0]
    return np.arange(1, graph.size)


def pin_op(graph: ChannelGraph, removal: Removal, stop: InterruptedForwardError, blamed: list[Op]) -> ExtraPin:
    """Pin what stopped a narrower forward: the last op before that moves the same channels by numbers in the code.

    Once others from its line of code were blamed before, which it adds itself to, those in its module are pinned with
    it, then all. Where there is none, the op that raised is pinned, then its neighbours, then its module, then the
    modules around it.
    """
    position = min(stop.position, len(graph.ops) - 1)
    culprit = graph.ops[position]
    concerned = concerned_by(graph, removal, stop)
    for op in reversed(graph.ops[: position + 1]):
        if op.name in SIZED and np.isin(removal.sets[labels_of([op])], concerned).any():
            twins = blamed_with(graph, op, blamed)
            if removal.gone(labels_of(twins)).any():
                blamed.append(op)
                return labels_of(twins), unfollowed(op)
    reason = unfollowed(culprit)
    for ops in ([culprit], graph.ops[max(0, position - 2) : position + 3]):
        touched = labels_of(ops)
        if removal.gone(touched).any():
            return touched, reason
    return labels_around(removal, culprit.module), reason


def blamed_with(graph: ChannelGraph, op: Op, blamed: Sequence[Op]) -> list[Op]:
    """What is pinned with an op: the more ops from its line of code were blamed before, the more of that line's."""
    times = sum((other.name, other.line) == (op.name, op.line) for other in blamed)
    if not times:
        return [op]
    twins = [other for other in graph.ops if (other.name, other.line) == (op.name, op.line)]
    return [other for other in twins if other.module == op.module] if times == 1 else twins


def unfollowed(op: Op) -> Reason:
    """That the code does not follow a narrower width at an op."""
    return Reason(Kind.SPLIT if op.name in ("split", "split_with_sizes") else Kind.CODE, op.place)


def concerned_by(graph: ChannelGraph, removal: Removal, stop: InterruptedForwardError) -> np.ndarray:
    """The sets that the op which stopped a narrower forward touches in the dense one."""
    return distinct(removal.sets[labels_of([graph.ops[min(stop.position, len(graph.ops) - 1)]])])


def labels_of(ops: Sequence[Op]) -> Labels:
    """Every label that some ops touch."""
    return labels_among([face for op in ops for face in op.touched])
