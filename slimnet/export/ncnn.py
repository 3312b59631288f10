"""export_ncnn: a network in ncnn's own format, a .param file and a .bin file, checked against the network."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from slimnet.errors import ExportError, UsageError
from slimnet.export.agreement import check_agreement
from slimnet.export.form import CAPTURING, CHECKING, EXPORT, Form, capture_form, conditions
from slimnet.export.ncnn_model import Converted, arrays_of, converted, load_ncnn, loaded
from slimnet.export.onnx import check_size, write_onnx
from slimnet.modules.example_inputs import ExampleInputs, Inputs, check_module
from slimnet.steps import StepCallback, Steps
from slimnet.storage.files import whole_file
from slimnet.surgery.equivalence import BATCHES
from slimnet.torch_state.precision import autocast_off

GRAPH, WEIGHTS = ".param", ".bin"
"""The ends of the names of the two files."""


@dataclass(frozen=True)
class NcnnExport:
    """A graph (`path`) and its weights (`weights`) that were written and checked; `size_bytes` is that of both.

    `inputs` are the shapes for which it was converted, each without the axis of the batch: ncnn computes one example at
    a time. `max_rel_difference` is the largest difference between an output and the network's, divided by its largest
    value, over the batch sizes in `batches`.
    """

    path: Path
    weights: Path
    size_bytes: int
    inputs: tuple[tuple[int, ...], ...]
    max_rel_difference: float | None
    batches: tuple[int, ...] = BATCHES

    def __str__(self) -> str:
        shapes = " and ".join(" × ".join(map(str, shape)) for shape in self.inputs)
        return (
            f"{self.path} and {self.weights.name}: ncnn for single inputs of {shapes}, {self.size_bytes:,} bytes, "
            f"outputs within {self.max_rel_difference:.1e} of the network's {conditions(self.batches, ())}"
        )


@autocast_off()
def export_ncnn(
    model: nn.Module, example_inputs: ExampleInputs | Inputs, path: str | Path, *, progress: StepCallback | None = None
) -> NcnnExport:
    """Write a network in ncnn's format and check it: the graph at `path` (.param), the weights in a .bin beside it.

    It takes single inputs of the shapes of `example_inputs`, in float32. Weights stay in float32. Earlier files are
    replaced, and only after ncnn has run the new ones with the network's outputs; whatever happens, a graph is never
    beside the weights of another one. `progress` is as for `slim`. The model is not changed.

    Raises:
        ExportError: the network cannot be exported, ncnn lacks one of its operators, the result differs, or it cannot
            be written.
        InputError, UsageError: the arguments do not fit, or ncnn is not installed.
    """
    target = Path(path)
    if target.suffix != GRAPH:
        raise UsageError(f"{path} does not end in {GRAPH}; name a file that does, whose weights are then beside it")
    load_ncnn()
    steps = Steps(len(EXPORT), progress)
    inputs, weights = Inputs.of(example_inputs), target.with_suffix(WEIGHTS)
    if any(tensor.dtype != torch.float32 for tensor in inputs.tensors):
        raise UsageError("ncnn takes inputs in float32 alone; convert the network with .float()")
    check_size(check_module(model).state.values())
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in inputs.tensors)
    with whole_file(target, ExportError) as graph_file, whole_file(weights, ExportError) as weights_file:
        with steps.step(0, CAPTURING):
            captured = capture_form(model, inputs, Form())
        with steps.step(1, CHECKING), tempfile.TemporaryDirectory(prefix="slimnet-ncnn-") as folder:
            source = Path(folder) / "network.onnx"
            write_onnx(captured, source)
            try:
                graph, content = converted(source, shapes)
                runner = NcnnRunner(loaded(graph, content, shapes, 1))
            except ExportError as error:
                raise ExportError(f"{captured.name} cannot be written for ncnn: {error}") from error
            difference = check_agreement(captured, runner, "ncnn's network", own_random_numbers=True).difference
        graph_file.write_text(graph, encoding="utf-8")
        weights_file.write_bytes(content)
        size = graph_file.stat().st_size + weights_file.stat().st_size
        # The weights are put into place first: without this, an earlier graph could then be beside them.
        target.unlink(missing_ok=True)
    return NcnnExport(target, weights, size, shapes, difference)


class NcnnRunner:
    """Runs a converted network: maps `Inputs` to the list of output tensors."""

    def __init__(self, network: Converted) -> None:
        self.network = network

    def __call__(self, inputs: Inputs) -> list[torch.Tensor]:
        """Run the network.

        Raises:
            ExportError: it does not take these inputs.
        """
        try:
            return [torch.from_numpy(array) for array in self.network.run(arrays_of(inputs))]
        except ValueError as error:
            raise ExportError(f"the network does not run under ncnn: {error}") from error
