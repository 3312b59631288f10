"""The forms of a bundle's network, each ready to run, and their comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from slimnet.bundle.manifest import ONNX, PROGRAM, WEIGHTS
from slimnet.errors import BundleError, ChangedBundleError, ExportError
from slimnet.export.agreement import sorts_nothing
from slimnet.export.capture import forward, private_copy, with_batch
from slimnet.export.onnx_runner import OnnxRunner, limit_for
from slimnet.export.pt2.runner import ProgramRunner
from slimnet.export.random_forward import Runner, depends_on_random_numbers
from slimnet.modules.example_inputs import Inputs, tensors_in
from slimnet.storage.folder_names import REMAKE
from slimnet.surgery.equivalence import BATCHES, nothing_finite, same_shapes, tolerance_for
from slimnet.surgery.plan import SurgeryPlan
from slimnet.surgery.selection_order import difference_in_order
from slimnet.torch_state.random_state import random_numbers_kept


def forms(folder: Path, module: nn.Module | None, *, exported: bool = True) -> dict[str, Runner]:
    """Every form of a bundle's network, ready to run."""
    first = {} if module is None else {WEIGHTS: module_runner(module)}
    if not exported:
        return first
    return {
        **first,
        PROGRAM: ProgramRunner(folder / PROGRAM),
        ONNX: OnnxRunner(folder / ONNX, limit_for(folder / WEIGHTS)),
    }


def batches_for(plan: SurgeryPlan) -> tuple[int, ...]:
    """The batch sizes at which forms are compared; none where the forward depends on data: inputs stay as given."""
    return BATCHES if plan.stop is None else ()


def check_exports(plan: SurgeryPlan, slim: nn.Module | None, place: Path, *, exported: bool) -> None:
    """Refuse a bundle that lacks its exported forms, or one without them whose network cannot be built.

    Raises:
        BundleError: it does.
    """
    if exported:
        return
    if plan.stop is None:
        raise ChangedBundleError(f"{place} has no {ONNX}; {REMAKE}")
    if slim is None:
        raise BundleError(
            f"{place} holds no exported form, since its forward depends on data: name its network, model="
        )


def module_runner(module: nn.Module) -> Runner:
    """Runs a copy of a module on the CPU in evaluation mode."""
    copy = private_copy(module)
    return lambda inputs: tensors_in(forward(copy, inputs))


@dataclass(frozen=True)
class Agreement:
    """The largest relative difference of each form to the first, and the forms of which only shapes were compared."""

    differences: Mapping[str, float]
    only_shapes: tuple[str, ...]


def compare(runners: Mapping[str, Runner], inputs: Inputs, place: Path, batches: Sequence[int] = BATCHES) -> Agreement:
    """Run all forms on the same inputs and the same random numbers, as far as they can draw the same.

    Without `batches` the inputs are taken as they are.

    Raises:
        ExportError: one differs from the first by more than the tolerance, or that is nowhere finite.
    """
    (reference, first), *others = runners.items()
    compared = [with_batch(inputs, batch) for batch in batches] or [inputs]
    random = depends_on_random_numbers(first, compared[0])
    # onnxruntime has a generator of its own.
    only_shapes = tuple(name for name, _ in others if name == ONNX and random)
    worst: dict[str, float] = {}
    for given in compared:
        batch = given.batch
        expected = under_the_same_numbers(first, given)
        if nothing_finite(expected):
            raise ExportError(
                f"{place}: {reference} returns no finite number at batch {batch}: nothing can be compared"
            )
        for name, runner in others:
            actual = under_the_same_numbers(runner, given)
            if name in only_shapes and same_shapes(expected, actual):
                continue
            tolerance = tolerance_for(expected)
            again = partial(under_the_same_numbers, first, given)
            selections = runner.selections if isinstance(runner, OnnxRunner) else sorts_nothing
            difference, _ = difference_in_order(expected, actual, tolerance, again, partial(selections, given))
            if difference > tolerance:
                raise ExportError(
                    f"{place}: {name} differs from {reference} by {difference:.1e} at batch {batch}, "
                    f"more than {tolerance:.0e}"
                )
            worst[name] = max(worst.get(name, 0.0), difference)
    return Agreement(worst, only_shapes)


def joined(agreements: Sequence[Agreement]) -> Agreement:
    """The agreement on several inputs: the largest differences."""
    worst: dict[str, float] = {}
    for each in agreements:
        for name, difference in each.differences.items():
            worst[name] = max(worst.get(name, 0.0), difference)
    return Agreement(worst, agreements[0].only_shapes)


def under_the_same_numbers(runner: Runner, inputs: Inputs) -> list[torch.Tensor]:
    """What one form returns, with the random numbers that every other one draws."""
    with random_numbers_kept():
        return runner(inputs)
