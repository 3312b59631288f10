"""export_executorch: a network as a program of ExecuTorch, a .pte file, checked against the network."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from slimnet.errors import ExportError, UsageError
from slimnet.export.agreement import check_agreement
from slimnet.export.capture import with_batch
from slimnet.export.executorch_model import LoweredNetwork, load_executorch, lowered
from slimnet.export.form import CAPTURING, CHECKING, EXPORT, Form, capture_form, conditions
from slimnet.export.onnx import check_size
from slimnet.modules.example_inputs import ExampleInputs, Inputs, check_module
from slimnet.steps import StepCallback, Steps, log_result
from slimnet.storage.files import whole_file
from slimnet.surgery.equivalence import BATCHES
from slimnet.torch_state.precision import autocast_off

PROGRAM = ".pte"
"""The end of the file's name."""


@dataclass(frozen=True)
class ExecutorchExport:
    """A program that was written and checked.

    `inputs` are the shapes that it takes, each without the axis of the batch: it computes one example at a time.
    `max_rel_difference` is the largest difference between an output and the network's, divided by its largest value,
    over the batch sizes in `batches`, None if the outputs are random.
    """

    path: Path
    size_bytes: int
    inputs: tuple[tuple[int, ...], ...]
    max_rel_difference: float | None
    batches: tuple[int, ...] = BATCHES

    def __str__(self) -> str:
        shapes = " and ".join(" × ".join(map(str, shape)) for shape in self.inputs)
        found = (
            "its outputs are random, and only their shapes were compared with the network's"
            if self.max_rel_difference is None
            else f"outputs within {self.max_rel_difference:.1e} of the network's"
        )
        where = conditions(self.batches, ())
        made_for = f"ExecuTorch with XNNPACK for single inputs of {shapes}"
        return f"{self.path}: {made_for}, {self.size_bytes:,} bytes, {found} {where}"


@autocast_off()
def export_executorch(
    model: nn.Module, example_inputs: ExampleInputs | Inputs, path: str | Path, *, progress: StepCallback | None = None
) -> ExecutorchExport:
    """Write a network as a program of ExecuTorch (.pte) and check it; an earlier file at `path` is replaced.

    It takes single inputs of the shapes of `example_inputs`: a batch of one. Weights stay in float32, and XNNPACK runs
    what it has kernels for. The file is written only after ExecuTorch has run it with the network's outputs.
    `progress` is as for `slim`. The model is not changed.

    Raises:
        ExportError: the network cannot be exported, ExecuTorch lacks one of its operators, the result differs, or it
            cannot be written.
        InputError, UsageError: the arguments do not fit, or ExecuTorch is not installed.
    """
    target, steps = Path(path), Steps(len(EXPORT), progress)
    if target.suffix != PROGRAM:
        raise UsageError(f"{path} does not end in {PROGRAM}; name a file that does")
    load_executorch()
    check_size(check_module(model).state.values())
    with whole_file(target, ExportError) as file:
        with steps.step(0, CAPTURING):
            captured = capture_form(model, Inputs.of(example_inputs), Form())
        single = with_batch(captured.inputs, 1)
        with steps.step(1, CHECKING):
            content = lowered(captured.module, single, captured.name)
            runner = OneByOne(LoweredNetwork(content, single))
            difference = check_agreement(captured, runner, "ExecuTorch's program", own_random_numbers=True).difference
        file.write_bytes(content)
    log_result(f"ExecuTorch program written to {target}")
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in single.tensors)
    return ExecutorchExport(target, len(content), shapes, difference)


class OneByOne:
    """Runs a program for single examples on each one of a batch: maps `Inputs` to the list of output tensors."""

    def __init__(self, network: LoweredNetwork) -> None:
        self.network = network

    def __call__(self, inputs: Inputs) -> list[torch.Tensor]:
        """Run the network.

        Raises:
            ExportError: it does not take these inputs.
        """
        try:
            rows = [self.network.run(self.row(inputs, number)) for number in range(inputs.batch)]
        except ValueError as error:
            raise ExportError(f"the network does not run under ExecuTorch: {error}") from error
        return [torch.cat(outputs) for outputs in zip(*rows, strict=True)]

    def row(self, inputs: Inputs, number: int) -> list[torch.Tensor]:
        """The inputs of one example; those without an axis of the batch belong to each."""
        return [
            tensor[number : number + 1].contiguous() if tensor.ndim and len(tensor) == inputs.batch else tensor
            for tensor in inputs.tensors
        ]
