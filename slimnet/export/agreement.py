"""An exported file compared with its network, before it is kept."""

from dataclasses import dataclass
from functools import partial

import torch

from slimnet.errors import ExportError
from slimnet.export.capture import Captured, run
from slimnet.export.form import checked_inputs
from slimnet.export.random_forward import Runner
from slimnet.modules.example_inputs import Inputs, tensors_in
from slimnet.surgery.equivalence import nothing_finite, same_shapes, tolerance_for
from slimnet.surgery.selection_order import difference_in_order
from slimnet.torch_state.random_state import random_numbers_kept

ADAPTIVE = "adaptive_"
"""Begins the names of pooling operators whose windows depend on the size."""


def cause(captured: Captured, inputs: Inputs) -> str:
    """The layer that is probably wrong for images of another size, in words: torch writes its windows as constants."""
    if captured.size_axes is None or inputs.tensors[0].shape[1:] == captured.inputs.tensors[0].shape[1:]:
        return ""
    for node in captured.program.graph.nodes:
        if ADAPTIVE in str(node.target):
            layers = [path for path, _ in node.meta.get("nn_module_stack", {}).values() if path]
            where = f" of layer {layers[-1]}" if layers else ""
            return f": the windows of {node.target}{where} depend on height and width"
    return ""


@dataclass(frozen=True)
class Agreement:
    """How far a file's outputs are from the network's.

    `difference` is the largest relative one; None if the outputs depend on random numbers and the file has a generator
    of its own: then only shapes were compared. `reordered` is whether the file sorts scores that are equal but for
    rounding in another order than the network, and was compared with the network in that order.
    """

    difference: float | None
    reordered: bool = False


def sorts_nothing(_: Inputs) -> list[torch.Tensor]:
    """The selections of a file without sorts, or of one whose sorts cannot be read."""
    return []


def check_agreement(
    captured: Captured,
    runner: Runner,
    form: str,
    *,
    own_random_numbers: bool,
    selections: Runner = sorts_nothing,
) -> Agreement:
    """Run file and network on the same inputs, at every batch size and size of images, and compare the outputs.

    `selections` gives the indices that the file's sorts select on inputs, where they can be read: then the order of
    equal scores may be another one (see `surgery.selection_order`).

    Raises:
        ExportError: the difference exceeds the tolerance, shapes differ, or the network's outputs have no finite value.
    """
    worst, only_shapes, reordered = 0.0, captured.random and own_random_numbers, False

    def network(inputs: Inputs) -> list[torch.Tensor]:
        return tensors_in(run(captured.module, inputs))

    for inputs in checked_inputs(captured):
        with random_numbers_kept():
            actual = runner(inputs)
        expected = network(inputs)
        where = f"at batch {inputs.batch}"
        if captured.size_axes is not None:
            where += " and " + " × ".join(str(inputs.tensors[0].shape[axis]) for axis in captured.size_axes)
        if nothing_finite(expected):
            raise ExportError(f"{captured.name} returns no finite number {where}, so that nothing can be compared")
        if only_shapes and same_shapes(expected, actual):
            continue
        tolerance = tolerance_for(expected)
        difference, in_other_order = difference_in_order(
            expected, actual, tolerance, partial(network, inputs), partial(selections, inputs)
        )
        worst, reordered = max(worst, difference), reordered or in_other_order
        if worst > tolerance:
            raise ExportError(
                f"{captured.name} as {form} differs from the network by {worst:.1e} {where}, "
                f"more than {tolerance:.0e}{cause(captured, inputs)}; nothing was written"
            )
    return Agreement(None if only_shapes else worst, reordered)
