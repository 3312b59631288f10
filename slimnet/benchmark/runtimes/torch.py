"""A contender prepared for timing: one call is one forward, on any device and runtime."""

import copy
import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import onnxruntime
import torch
from torch import nn

from slimnet.benchmark.contender import COMPILED, GRAPH, ONNX, Cell, Contender
from slimnet.benchmark.latency import Run, Stopwatch, wall_clock
from slimnet.benchmark.runtimes.onnxruntime import onnx_run
from slimnet.errors import UsageError, reason
from slimnet.modules.example_inputs import Inputs, tensors_in
from slimnet.torch_state.devices import fastest_kernels
from slimnet.torch_state.process import denormals_flushed, torch_threads

GRAPH_WARM_UPS = 3


def prepared(contender: Contender, cell: Cell, inputs: Inputs) -> Run:
    """One forward of a contender, copied, in evaluation mode, where the cell says.

    Raises:
        UsageError: its ONNX file cannot be loaded, or takes other inputs.
    """
    if cell.runtime == ONNX:
        assert contender.onnx is not None
        return onnx_run(contender.onnx, inputs, cell.threads, cell.device)
    assert contender.model is not None
    model = copy.deepcopy(contender.model).eval().to(cell.device)
    placed = inputs.map(lambda tensor: tensor.to(cell.device))
    if cell.runtime == COMPILED:
        model.compile(dynamic=False)
        return lambda: placed.call(model)
    if cell.runtime == GRAPH:
        return graph_run(model, placed)
    return lambda: placed.call(model)


def graph_run(model: nn.Module, inputs: Inputs) -> Run:
    """The forward captured once as a CUDA graph: a call replays its kernels, without Python or launches between."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(GRAPH_WARM_UPS):
            inputs.call(model)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # On this GPU's side stream: torch's own for captures is one of the GPU that it first captured on.
    with torch.cuda.graph(graph, stream=side):
        output = inputs.call(model)

    def replay() -> object:
        graph.replay()
        return output

    # The graph knows the places of weights and inputs, but does not keep them from being given to others.
    return functools.partial(kept_alive, replay, model, inputs)


def kept_alive(run: Run, *_: object) -> object:
    """A run that keeps other objects alive."""
    return run()


@contextmanager
def measurement_environment(cell: Cell) -> Iterator[Stopwatch]:
    """The settings during a measurement: threads, no gradients, cuDNN's fastest kernels; yields the stopwatch.

    Denormal numbers, which dead filters end in, are taken for zero: a dense network that a CPU computes dozens of
    times too slowly because of them would flatter the slim one. What torch compiled is forgotten afterwards.
    """
    with ExitStack() as stack:
        stack.enter_context(torch_threads(cell.threads))
        stack.enter_context(denormals_flushed())
        stack.enter_context(torch.inference_mode())
        if cell.runtime == COMPILED:
            stack.callback(torch.compiler.reset)
        if cell.device == "cpu":
            yield wall_clock()
            return
        stack.enter_context(torch.cuda.device(cell.device))
        stack.enter_context(fastest_kernels())
        yield wall_clock() if cell.runtime == ONNX else cuda_stopwatch


def cuda_stopwatch(run: Run, repeats: int) -> float:
    """Times runs on the GPU by events in its stream, from before the first kernel to after the last."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / repeats


def check_alike(contenders: Sequence[Contender], runs: Sequence[Run], inputs: Inputs, runtime: str) -> None:
    """Run every contender once, and refuse those that are not comparable.

    Raises:
        UsageError: one does not run on these inputs, or returns other shapes than the first.
    """
    given = ", ".join(str(tuple(tensor.shape)) for tensor in inputs.tensors)
    shapes = []
    for contender, run in zip(contenders, runs, strict=True):
        try:
            shapes.append(shapes_of(run()))
        except Exception as error:  # whatever the runtimes raise, which have no type in common
            raise UsageError(refusal(contender.name, runtime, given, error)) from error
        if shapes[-1] != shapes[0]:
            raise UsageError(
                f"{contender.name} returns {shapes[-1]} for inputs of {given}, but {contenders[0].name} "
                f"returns {shapes[0]}; compare networks for one task only"
            )


def refusal(name: str, runtime: str, given: str, error: Exception) -> str:
    """Why a contender does not run, in one line."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"{name} does not fit into the GPU's memory on inputs of {given}; use a smaller batch"
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return f"torch.compile does not manage {name} here: {reason(error)}; leave torch.compile out"
    where = "" if runtime in ("torch", ONNX) else f" under {runtime}"
    return f"{name} does not run{where} on inputs of {given}: {reason(error)}"


def shapes_of(output: object) -> list[tuple[int, ...]]:
    """Shapes of what a run returns: a list of arrays from onnxruntime, tensors in anything from torch."""
    if isinstance(output, list) and output and isinstance(output[0], onnxruntime.OrtValue):
        return [tuple(value.shape()) for value in output]
    leaves = output if isinstance(output, list) else tensors_in(output)
    return [tuple(np.shape(leaf)) for leaf in leaves]
