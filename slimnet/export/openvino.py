"""export_openvino: a network in OpenVINO's own format, an .xml file and a .bin file, checked against the network."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from slimnet.data.image_spec import ImageSpec
from slimnet.errors import ExportError, UsageError
from slimnet.export.agreement import check_agreement
from slimnet.export.form import CAPTURING, CHECKING, EXPORT, Form, capture_form, checked_sizes, conditions, metadata_of
from slimnet.export.onnx import check_request, check_size, described, write_onnx
from slimnet.export.openvino_graph import add_entries
from slimnet.export.openvino_model import GRAPH, WEIGHTS, OpenVinoRunner, core, load_openvino, said
from slimnet.export.preprocessing import Layout
from slimnet.modules.example_inputs import ExampleInputs, Inputs, check_module
from slimnet.steps import StepCallback, Steps
from slimnet.storage.files import whole_file
from slimnet.surgery.equivalence import BATCHES
from slimnet.torch_state.precision import autocast_off


@dataclass(frozen=True)
class OpenVinoExport:
    """A graph (`path`) and its weights (`weights`) that were written and checked; `size_bytes` is that of both.

    `max_rel_difference` is the largest difference between an output and the network's, divided by its largest value,
    over the batch sizes in `batches`, and the `sizes` (height and width) of images if these are dynamic. It is None if
    the outputs depend on random numbers, so that only their shapes can be compared.
    """

    path: Path
    weights: Path
    size_bytes: int
    max_rel_difference: float | None
    batches: tuple[int, ...] = BATCHES
    sizes: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        found = (
            "draws random numbers of its own, so only the shapes of its outputs were compared with the network's"
            if self.max_rel_difference is None
            else f"outputs within {self.max_rel_difference:.1e} of the network's"
        )
        where = conditions(self.batches, self.sizes)
        return f"{self.path} and {self.weights.name}: OpenVINO, {self.size_bytes:,} bytes, {found} {where}"


@autocast_off()
def export_openvino(
    model: nn.Module,
    example_inputs: ExampleInputs | Inputs,
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    images: ImageSpec | None = None,
    preprocessing: Layout | None = None,
    dynamic_size: bool = False,
    progress: StepCallback | None = None,
) -> OpenVinoExport:
    """Write a network in OpenVINO's format and check it: the graph at `path` (.xml), the weights in a .bin beside it.

    Weights stay in float32. The batch may have any size; the other arguments are as for `export_onnx`, with `metadata`
    in the section "slimnet" of the graph's `rt_info`. Earlier files are replaced, and only after OpenVINO has run the
    new ones with the network's outputs; whatever happens, a graph is never beside the weights of another one. The model
    is not changed.

    Raises:
        ExportError: the network cannot be exported, OpenVINO lacks one of its operators, the result differs, or it
            cannot be written.
        InputError, UsageError: the arguments do not fit, or OpenVINO is not installed.
    """
    target = Path(path)
    if target.suffix != GRAPH:
        raise UsageError(f"{path} does not end in {GRAPH}, by which OpenVINO finds the weights; name a file that does")
    load_openvino()
    check_request(metadata, None)
    check_size(check_module(model).state.values())
    steps = Steps(len(EXPORT), progress)
    form, weights = Form(images, preprocessing, dynamic_size), target.with_suffix(WEIGHTS)
    with whole_file(target, ExportError) as graph_file, whole_file(weights, ExportError) as weights_file:
        with steps.step(0, CAPTURING):
            captured = capture_form(model, example_inputs, form)
        with steps.step(1, CHECKING), tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / f"network{GRAPH}"
            export = write_onnx(captured, made.with_suffix(".onnx"))
            entries = described(metadata_of(form, example_inputs) | dict(metadata or {}), export.opset)
            convert(made.with_suffix(".onnx"), made, entries)
            difference = check_agreement(captured, OpenVinoRunner(made), "OpenVINO", own_random_numbers=True).difference
            shutil.copyfile(made, graph_file)
            shutil.copyfile(made.with_suffix(WEIGHTS), weights_file)
        size = graph_file.stat().st_size + weights_file.stat().st_size
        # The weights are put into place first: without this, an earlier graph could then be beside them.
        target.unlink(missing_ok=True)
    return OpenVinoExport(target, weights, size, difference, sizes=checked_sizes(captured))


def convert(source: Path, target: Path, entries: Mapping[str, str]) -> None:
    """Write an ONNX file in OpenVINO's format, in float32, with entries of metadata.

    Raises:
        ExportError: OpenVINO lacks one of its operators.
    """
    try:
        network = core().read_model(str(source))
    except RuntimeError as error:
        raise ExportError(f"OpenVINO does not read the network: {said(error)}") from error
    add_entries(network, entries)
    load_openvino().save_model(network, str(target), compress_to_fp16=False)
