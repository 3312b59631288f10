"""An exported file compared with its network, before it is kept."""

from slimnet.errors import ExportError
from slimnet.export.capture import Captured, run
from slimnet.export.form import checked_inputs
from slimnet.export.random_forward import Runner
from slimnet.modules.example_inputs import Inputs, tensors_in
from slimnet.surgery.equivalence import nothing_finite, relative_difference, same_shapes, tolerance_for
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


def check_agreement(captured: Captured, runner: Runner, form: str, *, own_random_numbers: bool) -> float | None:
    """Run file and network on the same inputs, at every batch size and size of images; the largest relative difference.

    None if the outputs depend on random numbers and the file has a generator of its own: then only shapes are compared.

    Raises:
        ExportError: it exceeds the tolerance, shapes differ, or the network's outputs have no finite value.
    """
    worst, only_shapes = 0.0, captured.random and own_random_numbers
    for inputs in checked_inputs(captured):
        with random_numbers_kept():
            actual = runner(inputs)
        expected = tensors_in(run(captured.module, inputs))
        where = f"at batch {inputs.batch}"
        if captured.size_axes is not None:
            where += " and " + " × ".join(str(inputs.tensors[0].shape[axis]) for axis in captured.size_axes)
        if nothing_finite(expected):
            raise ExportError(f"{captured.name} returns no finite number {where}, so that nothing can be compared")
        if only_shapes and same_shapes(expected, actual):
            continue
        worst = max(worst, relative_difference(expected, actual))
        if worst > tolerance_for(expected):
            raise ExportError(
                f"{captured.name} as {form} differs from the network by {worst:.1e} {where}, "
                f"more than {tolerance_for(expected):.0e}{cause(captured, inputs)}; nothing was written"
            )
    return None if only_shapes else worst
