"""The conditions of a measurement, and the check that contenders can be compared."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

from slimnet.benchmark.contender import Cell, Contender
from slimnet.benchmark.runtimes.runtime import Runtime
from slimnet.benchmark.runtimes.table import find_runtime
from slimnet.benchmark.turns import Run, Stopwatch
from slimnet.errors import UsageError
from slimnet.modules.example_inputs import Inputs
from slimnet.torch_state.devices import fastest_kernels
from slimnet.torch_state.process import denormals_flushed, torch_threads


@contextmanager
def measurement_environment(cell: Cell) -> Iterator[Stopwatch]:
    """The settings during a measurement: threads, no gradients, cuDNN's benchmark mode; yields the stopwatch.

    Denormal numbers, to which the weights of dead filters decay, are flushed to zero: they slow a CPU down dozens of
    times in the dense network, which would exaggerate the speed-up. Compiled code is discarded afterwards.
    """
    runtime = find_runtime(cell.runtime)
    with ExitStack() as stack:
        stack.enter_context(torch_threads(cell.threads))
        stack.enter_context(denormals_flushed())
        stack.enter_context(torch.inference_mode())
        stack.enter_context(runtime.session())
        if cell.device != "cpu":
            stack.enter_context(torch.cuda.device(cell.device))
            stack.enter_context(fastest_kernels())
        yield runtime.stopwatch(cell.device)


def check_alike(contenders: Sequence[Contender], runs: Sequence[Run], inputs: Inputs, runtime: Runtime) -> None:
    """Run every contender once, and refuse those that are not comparable.

    Raises:
        UsageError: one does not run on these inputs, or its outputs have other shapes than the first one's.
    """
    given = ", ".join(str(tuple(tensor.shape)) for tensor in inputs.tensors)
    shapes = []
    for contender, run in zip(contenders, runs, strict=True):
        try:
            shapes.append(runtime.shapes(run()))
        except torch.OutOfMemoryError as error:
            raise UsageError(
                f"{contender.name} does not fit into the GPU's memory on inputs of {given}; use a smaller batch"
            ) from error
        except Exception as error:  # the errors of runtimes have no common base
            raise UsageError(runtime.refusal(contender.name, given, error)) from error
        if shapes[-1] != shapes[0]:
            raise UsageError(
                f"{contender.name} returns {shapes[-1]} for inputs of {given}, but {contenders[0].name} "
                f"returns {shapes[0]}; compare networks for one task only"
            )
