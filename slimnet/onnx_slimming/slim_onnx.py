"""slim_onnx: from an ONNX file to a slim one with its certificate, for networks of which no code is at hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch

from slimnet.errors import CertificateError, SlimnetError, TraceError, UsageError
from slimnet.graph.channel_graph import ChannelGraph
from slimnet.modules.example_inputs import Inputs
from slimnet.onnx_slimming.example_feeds import Feed, draw, further_feeds, given_feed, inputs_of, sizes_for
from slimnet.onnx_slimming.graph_module import Binding, OnnxGraph, build_graph, run_graph
from slimnet.onnx_slimming.graph_rewrite import RewriteError, rewritten
from slimnet.onnx_slimming.model_file import fault_of, read_model
from slimnet.onnx_slimming.onnx_session import difference, run_session, session_of
from slimnet.onnx_slimming.small_filters import zero_small_filters
from slimnet.pipeline import FindIn, RoundTo, as_rounding, plan_and_apply, slim_found
from slimnet.planning.asked_layers import as_patterns
from slimnet.planning.dead_channels import DeadChannels, check_threshold, find_dead
from slimnet.printable import Summarised
from slimnet.slimmed import Slimmed
from slimnet.steps import StepCallback, Steps, log_result
from slimnet.storage.files import whole_file
from slimnet.surgery.certificate import check_tolerance
from slimnet.surgery.certificate_data import Certificate
from slimnet.surgery.equivalence import relative_difference
from slimnet.surgery.output_difference import Difference
from slimnet.surgery.plan import SurgeryPlan
from slimnet.width_search import WidthSearch

Examples = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]

STEPS, READING, SLIMMING, WRITING = 3, "reading the graph", "finding and cutting dead channels", "comparing the files"

AGREEMENT = 1e-3
"""How far the graph's own forward here may be from onnxruntime's, relative to the largest output."""


@dataclass(frozen=True, repr=False)
class SlimmedOnnx(Summarised):
    """The result of `slim_onnx`: a slim ONNX file with its plan and its certificate, measured under onnxruntime.

    `inputs` describes the inputs of that measurement. Layers are named by their weights, or else by their nodes.
    """

    path: Path
    plan: SurgeryPlan
    certificate: Certificate
    inputs: str
    bytes_before: int
    bytes_after: int

    @property
    def summary(self) -> str:
        """What was removed, and whether the certificate holds."""
        return f"{self.plan.summary}; {self.certificate.verdict}"

    def __str__(self) -> str:
        return f"{self.plan}\n{self.certificate}\nmeasured under onnxruntime on {self.inputs}"


@dataclass(frozen=True)
class OnnxNetwork:
    """A model that was read, and the inputs for it."""

    path: Path
    model: onnx.ModelProto
    first: Feed
    feeds: tuple[Feed, ...]
    inputs: str

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The first inputs, in the order of the graph's."""
        return tuple(torch.from_numpy(array) for array in self.first.values())


@dataclass(frozen=True)
class Request:
    """What is asked of a removal, as of `slim`."""

    threshold: float = 1e-3
    round_to: RoundTo = None
    keep: tuple[str, ...] = ()
    tolerance: float | None = None

    @classmethod
    def of(cls, threshold: float, round_to: RoundTo, keep: str | Sequence[str], tolerance: float | None) -> "Request":
        """Check what is asked before anything is read.

        Raises:
            UsageError: it cannot be done.
        """
        rounding = as_rounding(round_to)
        if isinstance(rounding, WidthSearch):
            raise UsageError('widths of an ONNX file are not chosen by measuring whole networks; round_to="fast"')
        if tolerance is not None:
            tolerance = check_tolerance(tolerance)
        return cls(check_threshold(threshold), rounding, as_patterns(keep), tolerance)


def slim_onnx(
    path: str | Path,
    out: str | Path,
    threshold: float = 1e-3,
    *,
    example_inputs: Examples | None = None,
    input_shape: Sequence[int] | None = None,
    round_to: RoundTo = None,
    keep: str | Sequence[str] = (),
    tolerance: float | None = None,
    overwrite: bool = False,
    progress: StepCallback | None = None,
) -> SlimmedOnnx:
    """Remove the dead channels of an ONNX file, and write a slim one with the same nodes, names and outputs.

    A channel is dead if its BatchNorm has |γ| < `threshold`, or if its filter is zero, as when a dead BatchNorm was
    folded into it. The certificate compares both files under onnxruntime, on `example_inputs` (in the order of the
    graph's inputs, or a mapping by name), or on random inputs of the shapes that the file declares; dynamic sizes
    `(C, H, W)` are those of `input_shape`. `round_to`, `keep`, `tolerance` and `progress` are as for `slim`. External
    weight files are read from the folder of the model only, and become part of the file that is written.

    Raises:
        UsageError: the file is no float ONNX model of at most 2 GB, or the request or the inputs do not fit, or `out`
            exists and `overwrite` was not asked for.
        TraceError: the graph cannot be traced.
        CertificateError: outputs differ by more than `tolerance` (relative); nothing is written.
        SlimnetError: no channel can be removed; nothing is written.
    """
    request, target = Request.of(threshold, round_to, keep, tolerance), Path(out)
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; name another file, or replace it with overwrite=True")
    steps = Steps(STEPS, progress)
    with steps.step(0, READING):
        network = read_network(Path(path), example_inputs, input_shape)
    with whole_file(target, UsageError) as file:
        slim, slimmed, found = attempts(network, request, steps)
        content = slim.SerializeToString()
        file.write_bytes(content)
        result = SlimmedOnnx(
            target,
            slimmed.plan,
            found,
            network.inputs,
            network.model.ByteSize(),
            len(content),
        )
    log_result(f"slim ONNX model written to {target}")
    return result


def plan_onnx(
    path: str | Path,
    threshold: float = 1e-3,
    *,
    example_inputs: Examples | None = None,
    input_shape: Sequence[int] | None = None,
    round_to: RoundTo = None,
    keep: str | Sequence[str] = (),
) -> SurgeryPlan:
    """The plan that `slim_onnx` would carry out; nothing is written.

    Raises:
        UsageError, TraceError: as `slim_onnx`.
    """
    request = Request.of(threshold, round_to, keep, None)
    network = read_network(Path(path), example_inputs, input_shape)
    module, _ = module_of(network, zero_small=True, fixed=False)
    inputs, rounding = Inputs.of(network.tensors), as_rounding(request.round_to)
    return plan_and_apply(module, inputs, finder(module, request), rounding, retrace=True)[1]


def read_network(path: Path, example: Examples | None, shape: Sequence[int] | None) -> OnnxNetwork:
    """Read a model, and draw inputs for it, or take those that were given.

    Raises:
        UsageError, InputError: it cannot be read, or the inputs do not fit.
    """
    model = read_model(path)
    declared = inputs_of(model)
    if example is None:
        sizes = [sizes_for(each, shape, index == 0) for index, each in enumerate(declared)]
        first, seeded = draw(declared, sizes, 0), True
    else:
        given = [example] if isinstance(example, torch.Tensor) else example
        first, seeded = given_feed(declared, given), False
    feeds = (first, *further_feeds(declared, first))
    return OnnxNetwork(path, model, first, feeds, in_words(feeds, seeded))


def in_words(feeds: Sequence[Feed], seeded: bool) -> str:
    """The inputs of a certificate: names, shapes, and the seeds with which they were drawn."""
    found = []
    for seed, feed in enumerate(feeds):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in feed.items())
        found.append(f"{shapes} {f'of seed {seed}' if seeded or seed else 'as given'}")
    return "; ".join(found)


def attempts(network: OnnxNetwork, request: Request, steps: Steps) -> tuple[onnx.ModelProto, Slimmed, Certificate]:
    """The slim model of the first way that holds: small filters taken for zero or not, sizes that follow or not.

    Raises:
        SlimnetError: none does; that of the last one.
    """
    failure: SlimnetError | None = None
    for zero_small, fixed in ((True, False), (False, False), (False, True)):
        try:
            return attempt(network, request, steps, zero_small=zero_small, fixed=fixed)
        except (CertificateError, RewriteError) as error:
            failure = failure or error
    assert failure is not None, "each way has failed"
    raise failure


def attempt(
    network: OnnxNetwork, request: Request, steps: Steps, *, zero_small: bool, fixed: bool
) -> tuple[onnx.ModelProto, Slimmed, Certificate]:
    """Slim a model in one way, and compare both files.

    Raises:
        CertificateError: outputs differ by more than the tolerance.
        RewriteError: the file cannot hold the result.
        SlimnetError: no channel can be removed.
    """
    with steps.step(1, SLIMMING):
        module, bindings = module_of(network, zero_small=zero_small, fixed=fixed)
        slimmed = slim_found(
            module, network.tensors, finder(module, request), round_to=request.round_to, tolerance=request.tolerance
        )
        if not slimmed.plan.removed_channels:
            raise nothing_removed(network, slimmed.plan)
    with steps.step(2, WRITING):
        assert isinstance(slimmed.model, OnnxGraph), "a plan keeps the class"
        slim = rewritten(network.model, module, slimmed.model, bindings, network.tensors)
        fault = fault_of(slim)
        if fault and not fault_of(network.model):
            raise RewriteError(f"the slim model is not valid: {fault}")
        found = certificate(slimmed.certificate, *difference(network.model, slim, network.feeds))
    if not found.holds:
        raise CertificateError(f"{found}; lower the threshold, or allow more with tolerance=")
    return slim, slimmed, found


def module_of(network: OnnxNetwork, *, zero_small: bool, fixed: bool) -> tuple[OnnxGraph, list[Binding]]:
    """The graph as a module that has run once and agrees with onnxruntime, and where its tensors are in the file.

    With `zero_small` filters that are zero but for rounding are zero in the module.

    Raises:
        TraceError: it cannot be followed, or computes something else here than under onnxruntime.
    """
    module, bindings = build_graph(network.model, fixed=fixed)
    outputs = run_graph(module, network.tensors)
    expected = run_session(session_of(network.model, network.path.name), network.first, network.path.name)
    apart = relative_difference(expected[: len(outputs)], outputs)
    if not apart <= AGREEMENT:
        raise TraceError(
            f"{network.path} computes something else here than under onnxruntime (relative difference {apart:.1e}); "
            "it cannot be slimmed"
        )
    if zero_small:
        zero_small_filters(module)
    return module, bindings


def finder(module: OnnxGraph, request: Request) -> FindIn:
    """Finds the dead channels of the graph of a module."""

    def find(graph: ChannelGraph) -> DeadChannels:
        found = find_dead(module, graph, request.threshold, keep=request.keep)
        return replace(found, criterion=f"{found.criterion}, or a filter that is zero")

    return find


def nothing_removed(network: OnnxNetwork, plan: SurgeryPlan) -> SlimnetError:
    """The error for a model of which no channel can be removed."""
    dead = plan.dead_channels
    why = "has no dead channel" if not dead else f"has {dead:,} dead channels, none of which can be removed"
    return SlimnetError(f"{network.path} {why}; nothing was written (--dry-run shows what stays and why)")


def certificate(measured: Certificate, found: Difference, samples: int) -> Certificate:
    """A certificate of the modules with what was measured of the files under onnxruntime."""
    values = found.measured.together
    return replace(
        measured,
        samples=samples,
        max_abs_difference=values.largest,
        max_rel_difference=found.measured.relative,
        top1_agreement=found.agreement,
        values=values.values,
        infinities=values.infinities,
        nans=values.nans,
    )
