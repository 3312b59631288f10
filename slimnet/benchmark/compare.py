"""Contenders side by side: size, multiply-accumulates, memory, accuracy, and latency on every runtime."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from slimnet.benchmark.contender import (
    ONNX,
    Cell,
    Contender,
    Models,
    Settings,
    cells,
    contenders_of,
    count,
    with_onnx,
)
from slimnet.benchmark.counts import batched
from slimnet.benchmark.environment import environment
from slimnet.benchmark.latency import Latency, interleave
from slimnet.benchmark.memory import peak_memory
from slimnet.benchmark.results import Comparison, Memory
from slimnet.benchmark.runs import check_alike, prepared, quiet_place
from slimnet.inputs import ExampleInputs, Inputs

Progress = Callable[[int, int, str], None]
"""Told how many latencies are measured, of how many, and which was the last."""


def compare(
    models: Models,
    example: ExampleInputs | Inputs,
    settings: Settings | None = None,
    *,
    progress: Progress | None = None,
) -> Comparison:
    """Measure two or more networks against the first of them.

    `models` maps names to modules or ONNX files, or is a list of contenders that have both. Where onnxruntime is
    asked for by name, modules without an ONNX file are exported into a temporary one. Modules are copied and put
    into eval mode; the ones given stay as they are, and so do torch's threads.

    Raises:
        UsageError: no runtime can run them all, they are of different tasks, or fewer than two were given.
    """
    settings = settings or Settings()
    contenders = contenders_of(models)
    with tempfile.TemporaryDirectory() as folder:
        if ONNX in settings.runtimes:
            contenders = [with_onnx(each, example, Path(folder)) for each in contenders]
        total = len(cells(contenders, settings))
        where = environment(settings.devices)
        latencies: list[Latency] = []
        for latency in measure(contenders, example, settings):
            latencies.append(latency)
            if progress is not None:
                progress(len(latencies), total, latency.label)
        return Comparison(
            count(contenders, example), tuple(latencies), where, tuple(memories(contenders, example, settings))
        )


def measure(contenders: Sequence[Contender], example: ExampleInputs | Inputs, settings: Settings) -> Iterator[Latency]:
    """Yield the latency on each device and runtime, with each number of threads and batch size, once it is measured.

    Raises:
        UsageError: as `compare`.
    """
    for cell in cells(contenders, settings):
        yield measure_cell(contenders, batched(example, cell.batch), cell, settings.seconds)


def measure_cell(contenders: Sequence[Contender], inputs: Inputs, cell: Cell, seconds: float) -> Latency:
    """The latency of every contender in one place, where they take turns."""
    with quiet_place(cell) as stopwatch:
        runs = [prepared(contender, cell, inputs) for contender in contenders]
        check_alike(contenders, runs, inputs, cell.runtime)
        samples = interleave(runs, seconds, stopwatch=stopwatch)
    names = tuple(contender.name for contender in contenders)
    return Latency(cell.runtime, cell.batch, cell.threads, names, tuple(map(tuple, samples.tolist())), cell.device)


def memories(contenders: Sequence[Contender], example: ExampleInputs | Inputs, settings: Settings) -> Iterator[Memory]:
    """Yield the peak activation memory at each batch size on each device, where all contenders are modules."""
    models = [contender.model for contender in contenders if contender.model is not None]
    if len(models) < len(contenders):
        return
    names = tuple(contender.name for contender in contenders)
    for device in settings.devices:
        for batch in settings.batches:
            inputs = batched(example, batch)
            yield Memory(device, batch, names, tuple(peak_memory(model, inputs, device) for model in models))
