"""slim: the pipeline from a dense network to a slim one with its plan and its certificate."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from slimnet.errors import CertificateError, SlimnetError, UsageError
from slimnet.graph.channel_graph import ChannelGraph
from slimnet.kernel_widths.fast_widths import FastWidths, as_fast_widths
from slimnet.models.architecture import architecture_of
from slimnet.modules.copying import eval_copy
from slimnet.modules.example_inputs import ExampleInputs, Inputs, check_inputs, check_module
from slimnet.modules.loaders import RepeatedLoader, batches_once
from slimnet.modules.network import Network
from slimnet.planning.asked_layers import as_patterns
from slimnet.planning.dead_channels import DeadChannels, find_dead, require_criterion
from slimnet.planning.make_plan import make_plan
from slimnet.planning.width_rounding import Rounding
from slimnet.slimmed import Slimmed
from slimnet.steps import StepCallback, Steps, log_result
from slimnet.surgery.apply_plan import apply_plan, independent
from slimnet.surgery.certificate import certify
from slimnet.surgery.certificate_data import Certificate
from slimnet.surgery.equivalence import TOLERANCE
from slimnet.surgery.plan import SurgeryPlan
from slimnet.torch_state.devices import uncompiled
from slimnet.torch_state.precision import autocast_off
from slimnet.torch_state.process import collection_paused, return_memory
from slimnet.torch_state.random_state import random_numbers_kept
from slimnet.tracing.trace import trace
from slimnet.width_search import WidthSearch, choose

RoundTo = int | str | Mapping[str, int] | Rounding | FastWidths | WidthSearch | None
"""What widths may be rounded to: a multiple, one for each of some layers, "fast", "auto", or nothing."""

STEPS, SEARCHING, CERTIFYING = 2, "finding and cutting dead channels", "measuring the certificate"
"""The steps of `slim`; both are repeated if a certificate does not hold and the plan is checked by a retrace."""

FindIn = Callable[[ChannelGraph], DeadChannels]
"""Finds the dead channels in the graph of one network."""


@autocast_off()
def slim(
    model: nn.Module,
    example_inputs: ExampleInputs,
    threshold: float = 1e-3,
    *,
    criterion: str = "gamma",
    loader: Iterable[Any] | None = None,
    round_to: RoundTo = None,
    keep: str | Sequence[str] = (),
    tolerance: float | None = None,
    float64: bool = False,
    progress: StepCallback | None = None,
) -> Slimmed:
    """Remove every dead channel that can be removed without changing the network's outputs.

    The model is not changed, nor is the random state. `example_inputs` are what forward takes: a tensor `(N, C, H, W)`,
    several, or a dict of keyword arguments. `criterion` says which channels are dead: "gamma" (|γ| < `threshold`, paper
    section 2.1) or "activation" (zero on all of `loader`, section 2.1 as well; the threshold is not used). `loader`
    yields example inputs, or `(inputs, labels)` pairs; the certificate is measured on it, or without it on the example
    inputs. It is iterated more than once, so a generator is refused. `tolerance` is the largest allowed change of an
    output, relative to its own largest value (default: 1e-4; 1e-2 in float16, 5e-2 in bfloat16).

    `round_to` keeps some removable channels, for widths that are fast on hardware: multiples of a number, or of one for
    each of some layers by name; "fast" (or "fast:openvino", or a `FastWidths`): the widths at which kernels are fast,
    by times that are measured once on a machine and stored; "auto" (or a `WidthSearch`): those of the network that is
    measured to be fastest under onnxruntime. `keep` names layers that keep their widths: the path of a layer or of a
    module around it, a pattern such as "*.conv2", or several. `progress` is called with the number of finished steps,
    the number of all steps, and a description of the current one.

    Raises:
        CertificateError: outputs differ by more than `tolerance` (relative); nothing is returned.
        TraceError: the forward cannot be traced, such as one that depends on data before its first layer.
        InputError, UsageError: the example inputs or the arguments do not fit.
    """
    require_criterion(criterion, with_data=loader is not None)
    kept = as_patterns(keep)
    batches = None if loader is None else RepeatedLoader(loader)
    measured_on = batches and Steps(STEPS, progress).counted(batches, 0, SEARCHING)
    return slim_found(
        model,
        example_inputs,
        lambda graph: find_dead(model, graph, threshold, criterion, measured_on, kept),
        loader=batches,
        round_to=round_to,
        tolerance=tolerance,
        float64=float64,
        progress=progress,
    )


def slim_found(
    model: nn.Module,
    example_inputs: ExampleInputs,
    find: FindIn,
    *,
    loader: Iterable[Any] | None = None,
    round_to: RoundTo = None,
    tolerance: float | None = None,
    float64: bool = False,
    progress: StepCallback | None = None,
) -> Slimmed:
    """`slim`, with the dead channels that `find` finds in the traced network; `loader` is for the certificate alone.

    Raises:
        CertificateError, TraceError, InputError, UsageError: as `slim` does.
    """
    network = check_module(model)
    inputs = check_inputs(network, example_inputs)
    rounding = as_rounding(round_to)
    steps = Steps(STEPS, progress)
    batches = None if loader is None else steps.counted(RepeatedLoader(loader), 1, CERTIFYING)
    find = found_once(find)

    def attempt(retrace: bool, trusted: SurgeryPlan | None) -> Slimmed:
        """Slim the network once, with a plan that was checked by a retrace, or one made without."""
        with steps.step(0, SEARCHING):
            narrow, plan = plan_and_apply(network, inputs, find, rounding, retrace=retrace, trusted=trusted)
        with steps.step(1, CERTIFYING):
            return certify_or_raise(network, narrow, plan, inputs, loader=batches, tolerance=tolerance, float64=float64)

    slimmed = retry_with_retrace(attempt)
    log_result(f"slimmed {slimmed.summary}")
    return slimmed


def found_once(find: FindIn) -> FindIn:
    """`find`, called once: every trace of a network gives the same labels, and a pass over data may be long."""
    found: list[DeadChannels] = []

    def find_first(graph: ChannelGraph) -> DeadChannels:
        if not found:
            found.append(find(graph))
        return found[0]

    return find_first


class SamePlanError(SlimnetError):
    """The plan made with a retrace equals the one made without, so that the result would be the same."""


def retry_with_retrace(attempt: Callable[[bool, SurgeryPlan | None], Slimmed]) -> Slimmed:
    """The result of `attempt(False)`, without a retrace; if its certificate does not hold, that of `attempt(True)`.

    The second attempt gets the plan of the first, and stops if its own is the same.

    Raises:
        CertificateError: neither certificate holds.
    """
    first: Slimmed | CertificateError
    try:
        first = attempt(False, None)
        if first.certificate.masked_max_rel_difference <= TOLERANCE:
            return first
    except CertificateError as error:
        first = error
    try:
        return attempt(True, first.plan if isinstance(first, Slimmed) else None)
    except SlimnetError:
        if isinstance(first, Slimmed):
            return first
        raise first from None


def certify_or_raise(
    model: nn.Module | Network,
    narrow: nn.Module,
    plan: SurgeryPlan,
    inputs: Inputs,
    *,
    loader: Iterable[Any] | None,
    tolerance: float | None,
    float64: bool,
) -> Slimmed:
    """The slim network with its certificate, measured on `loader`, or on the example inputs without it.

    What it has borrowed from the dense one it borrows until then: what a forward takes is free by the time of copies.

    Raises:
        CertificateError: outputs differ by more than `tolerance` (relative).
    """
    dense, slim = Network.of(model), Network.of(narrow)
    proof = certify(
        dense,
        slim,
        plan,
        inputs if loader is None else batches_once(loader),
        tolerance=tolerance,
        float64=float64,
    )
    if not proof.holds:
        raise CertificateError(f"{proof}; {advice(proof, plan)}")
    return_memory()
    return Slimmed(independent(slim, dense), plan, proof, inputs, architecture_of(dense.module))


def advice(proof: Certificate, plan: SurgeryPlan) -> str:
    """Advice for a certificate that does not hold; a plan without a threshold was measured on data."""
    remedy = "lower the threshold" if plan.threshold else "find dead channels on more data"
    if proof.not_finite:
        return f"pass inputs on which the dense network computes finite numbers, or {remedy}"
    if proof.stateful:
        return (
            "the plan takes what the network keeps between calls for constant: name the layers in front of it in keep="
        )
    return f"{remedy}, or allow more with tolerance="


def as_rounding(round_to: RoundTo) -> Rounding | WidthSearch:
    """What widths are rounded to, as it may be given.

    Raises:
        UsageError: it is not a positive whole number, nor a mapping of layers to such numbers, nor "fast" or "auto", or
            kernels have to be measured on a runtime that does not run here.
    """
    if isinstance(round_to, WidthSearch | Rounding):
        return round_to
    if isinstance(round_to, FastWidths):
        return round_to.rounding()
    if isinstance(round_to, str):
        if (fast := as_fast_widths(round_to)) is not None:
            return fast.rounding()
        if round_to != "auto":
            raise UsageError(
                f'round_to is {round_to!r}; it must be a number, a mapping of layers to numbers, "fast" or "auto"'
            )
        return WidthSearch()
    if round_to is None:
        return Rounding()
    return Rounding(layers=dict(round_to)) if isinstance(round_to, Mapping) else Rounding(round_to)


def plan_and_apply(
    model: nn.Module | Network,
    inputs: Inputs,
    find: FindIn,
    rounding: Rounding | WidthSearch | None = None,
    *,
    retrace: bool = False,
    trusted: SurgeryPlan | None = None,
) -> tuple[nn.Module, SurgeryPlan]:
    """The slim network and its plan; if its forward raises, the plan is made again with a retrace.

    The slim network shares the tensors that do not change with the dense one, see `apply_plan`. With `retrace` the
    first plan is checked already. A channel graph is freed once its plan is made, which leaves its memory to the
    networks; if another plan is needed, the network is traced again, which gives the same graph.

    Raises:
        SamePlanError: the plan is the `trusted` one.
    """
    find, network = found_once(find), Network.of(model)

    def plan_for(rounding: Rounding | None, *, retrace: bool) -> SurgeryPlan:
        graph = trace(network, inputs)
        return make_plan(network, inputs, graph, find(graph), retrace=retrace, rounding=rounding)

    # One pause for all three: at the end of each of its own, the objects of a trace would be walked through once more.
    @collection_paused()
    def make(rounding: Rounding | None) -> tuple[nn.Module, SurgeryPlan]:
        plan = plan_for(rounding, retrace=retrace)
        if plan == trusted:
            raise SamePlanError("the plan made with a retrace is the one made without")
        narrow = apply_plan(network, plan, borrow=True)
        if not retrace and not runs(narrow, inputs):
            plan = plan_for(rounding, retrace=True)
            narrow = apply_plan(network, plan, borrow=True)
        return narrow, plan

    return choose(network.module, inputs, make, rounding) if isinstance(rounding, WidthSearch) else make(rounding)


def runs(model: nn.Module, inputs: Inputs) -> bool:
    """Whether a network's forward takes these inputs, in evaluation mode; the network is not touched."""
    try:
        with torch.no_grad(), uncompiled(), random_numbers_kept(model):
            inputs.call(eval_copy(model))
    except Exception:  # whatever its own code raises
        return False
    return True
