"""export_pt2: a network as one .pt2 file for `torch.export.load`, checked against the network."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from slimnet.data.image_spec import ImageSpec
from slimnet.errors import ExportError
from slimnet.export.agreement import check_agreement
from slimnet.export.capture import Captured
from slimnet.export.form import CAPTURING, CHECKING, EXPORT, Form, capture_form, checked_sizes, conditions
from slimnet.export.preprocessing import Layout
from slimnet.export.pt2.runner import ProgramRunner, TorchRunner, program_bytes
from slimnet.export.random_forward import Runner
from slimnet.modules.example_inputs import ExampleInputs, Inputs
from slimnet.steps import StepCallback, Steps, log_result
from slimnet.storage.files import whole_file
from slimnet.surgery.equivalence import BATCHES
from slimnet.torch_state.precision import autocast_off


@dataclass(frozen=True)
class Pt2Export:
    """A .pt2 file that was written and checked.

    `max_rel_difference` is the largest difference between an output and the network's, divided by its largest value,
    over the batch sizes in `batches`, and the `sizes` (height and width) of images if these are dynamic, as torch runs
    the file and as slimnet does.
    """

    path: Path
    size_bytes: int
    max_rel_difference: float
    batches: tuple[int, ...] = BATCHES
    sizes: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.path}: exported program, {self.size_bytes:,} bytes, outputs within {self.max_rel_difference:.1e} "
            f"of the network's {conditions(self.batches, self.sizes)}"
        )


@autocast_off()
def export_pt2(
    model: nn.Module,
    example_inputs: ExampleInputs | Inputs,
    path: str | Path,
    *,
    images: ImageSpec | None = None,
    preprocessing: Layout | None = None,
    dynamic_size: bool = False,
    progress: StepCallback | None = None,
) -> Pt2Export:
    """Write a network as one .pt2 file and check it; an earlier file at `path` is replaced.

    `torch.export.load(path).module()` runs it without the network's code. The batch may have any size. `images`,
    `preprocessing`, `dynamic_size` and `progress` are as for `export_onnx`. The file is written only after torch and
    slimnet's own reader have run it with the network's outputs. The model is not changed.

    Raises:
        ExportError: the network cannot be exported, the result differs, or it cannot be written.
        InputError, UsageError: the example inputs or the arguments do not fit.
    """
    target = Path(path)
    form, steps = Form(images, preprocessing, dynamic_size), Steps(len(EXPORT), progress)
    with whole_file(target, ExportError) as file:
        with steps.step(0, CAPTURING):
            captured = capture_form(model, example_inputs, form)
        with steps.step(1, CHECKING):
            file.write_bytes(program_bytes(captured.program))
            found = [check_runner(captured, runner) for runner in (TorchRunner(file), ProgramRunner(file))]
        size = file.stat().st_size
    log_result(f"exported program written to {target}")
    return Pt2Export(target, size, max(found), sizes=checked_sizes(captured))


def check_runner(captured: Captured, runner: Runner) -> float:
    """Compare the file with the network; the largest relative difference, see `check_agreement`.

    Raises:
        ExportError: they differ.
    """
    return check_agreement(captured, runner, "exported program", own_random_numbers=False).difference or 0.0
