"""A contender made ready to be timed: one call is one forward, on any device and runtime."""

import copy
import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import nn

from slimnet.benchmark.contender import COMPILED, CUDA_PROVIDER, GRAPH, ONNX, Cell, Contender
from slimnet.benchmark.counts import read_onnx
from slimnet.benchmark.latency import Run, Stopwatch, wall_clock
from slimnet.denormals import denormals_flushed
from slimnet.errors import UsageError
from slimnet.files import open_file
from slimnet.inputs import Inputs, tensors_in
from slimnet.models.architecture import reason
from slimnet.places import fastest_kernels
from slimnet.threads import torch_threads

SPIN_ONLY_WHILE_RUNNING = ("session.force_spinning_stop", "1")
DENORMALS_ARE_ZERO = ("session.set_denormal_as_zero", "1")
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
    """A run of something that needs other things to stay where they are."""
    return run()


def onnx_run(path: Path, inputs: Inputs, threads: int, device: str) -> Run:
    """One run of an ONNX file; on a GPU its inputs and outputs stay there."""
    session = onnx_session(path, threads, device)
    feeds = feeds_of(session, path, inputs)
    if device == "cpu":
        return lambda: session.run(None, feeds)
    index = torch.device(device).index or 0
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", index))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda", index)

    def run() -> object:
        session.run_with_iobinding(binding)
        return binding.get_outputs()

    return run


def feeds_of(session: onnxruntime.InferenceSession, path: Path, inputs: Inputs) -> dict[str, np.ndarray]:
    """The inputs by the names that an ONNX file gives them.

    Raises:
        UsageError: it takes another number of them.
    """
    names = [value.name for value in session.get_inputs()]
    if len(names) != len(inputs.tensors):
        raise UsageError(f"{path} takes {len(names)} inputs but {len(inputs.tensors)} given; pass one for each")
    return {name: tensor.cpu().numpy() for name, tensor in zip(names, inputs.tensors, strict=True)}


def onnx_session(
    path: Path, threads: int, device: str = "cpu", profile: Path | None = None
) -> onnxruntime.InferenceSession:
    """An ONNX file ready to run; with `profile`, the name with which the files of its profile begin.

    Raises:
        UsageError: onnxruntime does not take it, or not on this device.
    """
    read_onnx(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Else one contender's idle threads would still spin while the other is timed.
    options.add_session_config_entry(*SPIN_ONLY_WHILE_RUNNING)
    options.add_session_config_entry(*DENORMALS_ARE_ZERO)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    providers: list[object] = ["CPUExecutionProvider"]
    if device != "cpu":
        providers.insert(0, (CUDA_PROVIDER, {"device_id": str(torch.device(device).index or 0)}))
    try:
        with open_file(path):
            session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no type in common
        raise UsageError(f"onnxruntime cannot load {path}: {reason(error)}") from error
    if device != "cpu" and session.get_providers()[0] != CUDA_PROVIDER:
        raise UsageError(f"onnxruntime's {CUDA_PROVIDER} does not start here; leave onnxruntime out, or use the CPU")
    return session


@contextmanager
def quiet_place(cell: Cell) -> Iterator[Stopwatch]:
    """What holds while a cell is measured: threads, no gradients, cuDNN's fastest kernels; yields how to time.

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
    """Run every contender once, and refuse those that cannot be compared.

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
