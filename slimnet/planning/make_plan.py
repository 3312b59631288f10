"""make_plan: decide what goes, check the network's own code against it, and write it down."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from slimnet.graph.channel_graph import ChannelGraph, Op
from slimnet.graph.reasons import Kind, Reason
from slimnet.modules.example_inputs import ExampleInputs, Inputs
from slimnet.modules.network import Network
from slimnet.planning.candidates import removable
from slimnet.planning.channel_order import MixedChannelsError, match
from slimnet.planning.code_pins import concerned_by, pin_op, pin_sets
from slimnet.planning.constants import propagate
from slimnet.planning.constraints import better_crossings, settle, single_channel_sets
from slimnet.planning.dead_channels import DeadChannels
from slimnet.planning.group_packing import equal_parts, find_packable, pack, packed_sets
from slimnet.planning.liveness import Needs, needs
from slimnet.planning.plan_builder import write_plan
from slimnet.planning.removal import Removal
from slimnet.planning.retrace import Draft, trace_slim
from slimnet.planning.slim_cost import is_plain, natural_orders, slim_cost_by_arithmetic, slim_cost_of_trace, unchanged
from slimnet.planning.split_axes import ExtraPin, Turns
from slimnet.planning.step_check import check_steps
from slimnet.planning.width_rounding import Multiples, Rounding
from slimnet.surgery.plan import SurgeryPlan
from slimnet.torch_state.process import collection_paused
from slimnet.tracing.trace import InterruptedForwardError

MAX_ROUNDS = 60
"""How often a plan is made again because the network's code did not follow the last one."""


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
    model: nn.Module | Network,
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


def plan_from(
    basis: Basis, model: nn.Module | Network, inputs: Inputs, *, tried: bool, rounding: Rounding
) -> SurgeryPlan:
    """The largest removal for what is known of a network, as `make_plan` makes it."""
    graph, dead, constants, needed = basis.graph, basis.dead, basis.constants, basis.needs
    rounding.check_against(graph)
    network = Network.of(model)
    tensors, name = graph.tensors, network.name
    pins = list(basis.pins)
    turns = Turns()
    if any(len(parts.free) > 1 for parts in graph.parts):
        turns.begin(removable(graph, constants, needed, pins))
    packing_allowed = basis.packed
    paired: frozenset[int] = frozenset()
    uncrossed: set[int] = set()
    blamed: list[Op] = []
    for _ in range(MAX_ROUNDS):
        start = removable(graph, constants, needed, pins, turns=dict(turns.chosen), paired=paired, blamed=turns.blamed)
        draft = make_draft(start, packing_allowed, rounding, frozenset(uncrossed))
        removal = draft.removal
        if idle := turns.give_up(removal):
            pins += idle
            continue
        if not removal.removed.any():
            narrow = unchanged(tensors.parameters, graph)
            return write_plan(name, tensors, narrow, removal, natural_orders(removal), dead, str(rounding))
        if not tried and is_plain(graph):
            narrow = slim_cost_by_arithmetic(tensors.parameters, removal)
            return write_plan(name, tensors, narrow, removal, natural_orders(removal), dead, str(rounding))
        try:
            structure, slim = trace_slim(network, inputs, draft)
            orders = match(removal, slim, draft.rows)
            check_steps(removal, slim, orders)
            return write_plan(name, tensors, slim_cost_of_trace(structure, slim), removal, orders, dead, str(rounding))
        except MixedChannelsError as mixed:
            if draft.packings and packing_allowed:
                packing_allowed = False
            elif crossed := crossed_by(draft, mixed.sets):
                uncrossed |= crossed
            elif alone := single_channel_sets(removal, mixed.sets):
                paired |= alone
            else:
                pin = turns.turn(removal, mixed.sets, len(graph.ops), pin_sets(removal, mixed.sets, mixed.where))
                pins += [] if pin is None else [pin]
        except InterruptedForwardError as stop:
            touched = concerned_by(graph, removal, stop)
            if alone := single_channel_sets(removal, touched):
                paired |= alone
                continue
            pin = turns.turn(removal, touched, stop.position, pin_op(graph, removal, stop, blamed))
            pins += [] if pin is None else [pin]
    reason = Reason(Kind.CODE)
    removal = removable(graph, constants, needed, [(np.arange(1, graph.size), reason)])
    narrow = unchanged(tensors.parameters, graph)
    return write_plan(name, tensors, narrow, removal, natural_orders(removal), dead, str(rounding))


def make_draft(removal: Removal, packing_allowed: bool, rounding: Rounding, uncrossed: frozenset[int]) -> Draft:
    """What is left of a removal that can be built: equal parts, carriers, last channels, round widths, packed groups.

    `uncrossed` are the first sets of crossings that did not work out, whose divisions are made equal one by one.
    """
    packable = find_packable(removal) if packing_allowed else set()
    removal = removal.with_problem(equal=equal_parts(removal.problem, packable))
    crossings, settled = better_crossings(removal, uncrossed)
    multiples = Multiples.of_layers(removal, rounding)
    if widths := multiples.widths(packed_sets(removal, packable)):
        settled = settle(removal.with_problem(widths=tuple(widths)), crossings)
    packings, packed = pack(settled, packable, multiples)
    if packed is not settled:
        packed = settle(packed, crossings)
    return Draft(packed, tuple(packings), tuple(crossings))


def crossed_by(draft: Draft, sets: np.ndarray) -> set[int]:
    """The first sets of the crossings that have some sets in them."""
    return {crossing.first for crossing in draft.crossings if np.isin(crossing.sets, sets).any()}
