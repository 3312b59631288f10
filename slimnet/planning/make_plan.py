"""make_plan: choose the channels to remove, check them by a retrace of the network's code, and write the plan."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from slimnet.graph.channel_graph import ChannelGraph
from slimnet.graph.reasons import Kind, Reason
from slimnet.modules.example_inputs import ExampleInputs, Inputs
from slimnet.modules.network import Network
from slimnet.planning.asked_layers import pins_of
from slimnet.planning.attribute_cuts import attribute_values, counted_channels, linked_divisions
from slimnet.planning.candidates import removable
from slimnet.planning.channel_order import MixedChannelsError, Orders, match
from slimnet.planning.code_findings import CodeFindings
from slimnet.planning.constants import propagate
from slimnet.planning.constraints import better_crossings, settle
from slimnet.planning.dead_channels import DeadChannels
from slimnet.planning.group_packing import equal_parts, find_packable, pack, packed_sets
from slimnet.planning.liveness import Needs, needs
from slimnet.planning.plan_builder import dead_outputs, write_plan
from slimnet.planning.removal import Removal
from slimnet.planning.retrace import Draft, trace_slim
from slimnet.planning.slim_cost import (
    SlimCost,
    is_plain,
    natural_orders,
    slim_cost_by_arithmetic,
    slim_cost_of_trace,
    unchanged,
)
from slimnet.planning.split_axes import AxisChoices, ExtraPin
from slimnet.planning.step_check import check_steps
from slimnet.planning.width_rounding import AllowedWidths, Rounding
from slimnet.surgery.plan import SurgeryPlan
from slimnet.surgery.plan_data import AttributeCut
from slimnet.torch_state.process import collection_paused
from slimnet.tracing.trace import InterruptedForwardError

MAX_ROUNDS = 60
"""The number of drafts, each of which takes the failed retraces of earlier ones into account."""


@dataclass(frozen=True)
class Basis:
    """The input of a plan: the graph, its dead channels, the constants that follow from them, and their liveness.

    `pins` are labels that the caller keeps; without `packed` grouped convolutions keep their groups.
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
    retrace: bool = True,
    rounding: Rounding | None = None,
) -> SurgeryPlan:
    """A plan of the largest removal that leaves the network's function unchanged, except channels kept by `rounding`.

    Each draft is checked by a retrace on a skeleton: if the network's code hard-codes a width, the channels that this
    code touches are pinned and another draft is made. Without `retrace`, networks that consist of width-independent ops
    are not checked, which saves a third of the time; where such a network does not fit, its forward raises.
    """
    basis = basis_of(graph, dead)
    return plan_from(basis, model, Inputs.of(example_inputs), retrace=retrace, rounding=rounding or Rounding())


def basis_of(graph: ChannelGraph, dead: DeadChannels) -> Basis:
    """The input of a plan for a graph and its dead channels."""
    outputs = np.array(dead.outputs, dtype=np.int64)
    constants = propagate(graph, dead.scales, outputs)
    return Basis(graph, dead, constants, needs(graph, constants, outputs), pins_of(graph, dead.keep))


def dead_by_layer(graph: ChannelGraph, dead: DeadChannels) -> dict[str, list[int]]:
    """The positions of the dead outputs of every layer, those that follow from other dead channels among them."""
    removal = start_of(basis_of(graph, dead), CodeFindings())
    return {layer: np.flatnonzero(found).tolist() for layer, found in dead_outputs(removal, dead.outputs).items()}


def plan_from(
    basis: Basis, model: nn.Module | Network, inputs: Inputs, *, retrace: bool, rounding: Rounding
) -> SurgeryPlan:
    """The plan of the largest removal for a basis, as `make_plan` returns it."""
    graph, network = basis.graph, type(model.module if isinstance(model, Network) else model).__name__
    rounding.check_against(graph)
    findings = first_findings(basis)
    for _ in range(MAX_ROUNDS):
        draft = make_draft(start_of(basis, findings), findings, rounding)
        removal = draft.removal
        choices, idle = findings.choices.without_useless(removal)
        if idle:
            findings = findings.with_choices(choices, *idle)
            continue
        if not removal.removed.any():
            return plan_of(basis, network, draft, unchanged(graph.tensors.parameters, graph), rounding)
        if not retrace and is_plain(graph):
            narrow = slim_cost_by_arithmetic(graph.tensors.parameters, removal)
            return plan_of(basis, network, draft, narrow, rounding, attributes=counted_channels(removal))
        values = attribute_values(removal)
        failure = None
        counted = counted_channels(removal)
        for attributes in dict.fromkeys((values.cuts + counted, counted)):
            try:
                structure, slim = trace_slim(Network.of(model), inputs, draft, attributes)
                orders = match(removal, slim, draft.rows)
                check_steps(removal, slim, orders)
                cost = slim_cost_of_trace(structure, slim)
                return plan_of(basis, network, draft, cost, rounding, orders, attributes)
            except (MixedChannelsError, InterruptedForwardError) as error:
                failure = failure or error
        assert failure is not None
        findings = findings.after_retrace(draft, values, failure)
    everything = [(np.arange(1, graph.size), Reason(Kind.CODE))]
    nothing = Draft(removable(graph, basis.constants, basis.needs, everything), (), ())
    return plan_of(basis, network, nothing, unchanged(graph.tensors.parameters, graph), rounding)


def first_findings(basis: Basis) -> CodeFindings:
    """The findings before the first draft."""
    findings = CodeFindings(basis.pins, packing=basis.packed)
    if any(len(parts.free) > 1 for parts in basis.graph.parts):
        return findings.with_choices(AxisChoices.first_choices(start_of(basis, findings)))
    return findings


def start_of(basis: Basis, findings: CodeFindings) -> Removal:
    """The removal of all removable channels, given the findings about the code."""
    choices = findings.choices
    return removable(
        basis.graph,
        basis.constants,
        basis.needs,
        findings.pins,
        chosen_axes=choices.chosen,
        blamed=choices.blamed,
        paired=findings.paired,
    )


def make_draft(removal: Removal, findings: CodeFindings, rounding: Rounding) -> Draft:
    """The part of a removal that can be built, with equal parts, carriers, round widths and packed groups."""
    packable = find_packable(removal) if findings.packing else set()
    equal = equal_parts(removal.problem, packable)
    linked = linked_divisions(removal.graph, removal.sets, findings.linked)
    # Parts of parts first: where they are equal, the whole is.
    finest_first = sorted((*equal, *linked), key=lambda division: division.rows.shape[1])
    removal = removal.with_problem(equal=tuple(finest_first))
    crossings, settled = better_crossings(removal, findings.uncrossed)
    allowed = AllowedWidths.of_layers(removal, rounding)
    if widths := allowed.constraints(packed_sets(removal, packable)):
        settled = settle(removal.with_problem(widths=tuple(widths)), crossings)
    packings, packed = pack(settled, packable, allowed)
    if packed is not settled:
        packed = settle(packed, crossings)
    return Draft(packed, tuple(packings), tuple(crossings))


def plan_of(
    basis: Basis,
    network: str,
    draft: Draft,
    narrow: SlimCost,
    rounding: Rounding,
    orders: Orders | None = None,
    attributes: tuple[AttributeCut, ...] = (),
) -> SurgeryPlan:
    """A draft as a plan; without `orders` the kept channels stay in their order.

    Raises:
        MixedChannelsError: as `write_plan`.
    """
    removal = draft.removal
    found = natural_orders(removal) if orders is None else orders
    return write_plan(network, basis.graph.tensors, narrow, removal, found, basis.dead, str(rounding), attributes)
