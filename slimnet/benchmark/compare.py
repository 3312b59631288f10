"""A comparison of contenders: size, multiply-accumulates, memory, accuracy, and latency on every runtime."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import count as count_from
from pathlib import Path

from slimnet.benchmark.accuracy import accuracies
from slimnet.benchmark.conditions import check_alike, measurement_environment
from slimnet.benchmark.contender import Cell, Contender, Models, contenders_of, count, in_form
from slimnet.benchmark.environment import environment, usable_cores
from slimnet.benchmark.latency import Latency
from slimnet.benchmark.layers import has_layers, profile
from slimnet.benchmark.load import load_meter, overload
from slimnet.benchmark.memory import peak_memory
from slimnet.benchmark.parts import WatchPart, accuracy_parts, begun
from slimnet.benchmark.profile import Profile
from slimnet.benchmark.results import Accuracies, Comparison, Memory
from slimnet.benchmark.runtimes.table import find_runtime
from slimnet.benchmark.settings import Settings, cells, requested, shared_runtimes
from slimnet.benchmark.turns import Turns, Watch, cpu_clock, take_sittings
from slimnet.data import ImageData
from slimnet.modules.example_inputs import ExampleInputs, Inputs, batched

Measured = Latency | Accuracies | Profile
Progress = Callable[[int, int, str], None]
"""Called with the number of finished measurements, the total, and a label of the last one."""


def compare(
    models: Models,
    example: ExampleInputs | Inputs,
    settings: Settings | None = None,
    *,
    data: ImageData | None = None,
    progress: Progress | None = None,
    watch: WatchPart | None = None,
) -> Comparison:
    """Measure two or more networks against the first of them.

    `models` maps names to modules or ONNX files, or is a list of contenders that have both. If a runtime of ONNX files
    is requested by name, modules without a file are exported to a temporary one. Copies of the modules are measured in
    eval mode; neither the modules nor torch's number of threads are changed. With `data` the accuracy on its test
    images is measured, by each runtime that can run all networks on the CPU. `progress` is called after each
    measurement, `watch` with the share of the current one of the `parts` that is done.

    Raises:
        UsageError: no runtime can run all of them, they are of different tasks, or there are fewer than two.
        DataError: a network does not take the data, or has another number of classes.
    """
    settings = settings or Settings()
    contenders = contenders_of(models)
    with tempfile.TemporaryDirectory() as folder:
        forms = {each.needs for each in requested(settings)} if settings.runtimes else set()
        for form in forms:
            contenders = [in_form(each, form, example, Path(folder)) for each in contenders]
        total = steps(contenders, settings, data)
        where = environment(settings.devices)
        rows: list[Measured] = []
        for row in everything(contenders, example, settings, data, watch):
            rows.append(row)
            if progress is not None:
                progress(len(rows), total, row.label)
        return Comparison(
            count(contenders, example),
            tuple(row for row in rows if isinstance(row, Latency)),
            where,
            tuple(memories(contenders, example, settings)),
            tuple(row for row in rows if isinstance(row, Accuracies)),
            tuple(row for row in rows if isinstance(row, Profile)),
        )


def steps(contenders: Sequence[Contender], settings: Settings, data: ImageData | None = None) -> int:
    """The number of measurements, for the progress of `compare`.

    Raises:
        UsageError: as `compare`.
    """
    measured = cells(contenders, settings)
    profiles = sum(map(has_layers, measured)) if settings.layers else 0
    return len(measured) + profiles + (0 if data is None else len(shared_runtimes(contenders)))


def everything(
    contenders: Sequence[Contender],
    example: ExampleInputs | Inputs,
    settings: Settings,
    data: ImageData | None = None,
    watch: WatchPart | None = None,
) -> Iterator[Measured]:
    """Yield the measurements that take time: accuracy if there is data, latency, and layer times if requested."""
    timed, numbers = cells(contenders, settings), count_from(0)
    if data is not None:
        yield from accuracies(contenders, data, max(settings.thread_counts), settings.devices[-1], watch)
        numbers = count_from(len(accuracy_parts(contenders)))
    for cell in timed:
        part = begun(watch, next(numbers))
        yield measure_cell(contenders, batched(example, cell.batch), cell, settings.seconds, part)
        if settings.layers and has_layers(cell):
            yield profile(contenders, example, cell, settings.seconds, begun(watch, next(numbers)))


def measure(contenders: Sequence[Contender], example: ExampleInputs | Inputs, settings: Settings) -> Iterator[Latency]:
    """Yield the latency on each device and runtime, for each number of threads and batch size.

    Raises:
        UsageError: as `compare`.
    """
    for cell in cells(contenders, settings):
        yield measure_cell(contenders, batched(example, cell.batch), cell, settings.seconds)


def measure_cell(
    contenders: Sequence[Contender], inputs: Inputs, cell: Cell, seconds: float, watch: Watch | None = None
) -> Latency:
    """The latency of every contender in one setting, interleaved."""
    runtime, alone = find_runtime(cell.runtime), cell.device == "cpu" and cell.threads == 1
    with measurement_environment(cell) as stopwatch:
        runs = [runtime.prepare(each, cell, runtime.inputs_of(each, inputs)) for each in contenders]
        check_alike(contenders, runs, inputs, runtime)
        others = load_meter()
        turns = take_sittings(runs, seconds, stopwatch=stopwatch, cpu=cpu_clock() if alone else None, watch=watch)
        load = overload(cell.threads, others(), usable_cores())
    names = tuple(contender.name for contender in contenders)
    return latency_of(cell, names, turns, load)


def latency_of(cell: Cell, names: tuple[str, ...], turns: Turns, load: float | None) -> Latency:
    """What was measured in one setting."""
    wall, cpu = (None if each is None else tuple(map(tuple, each.tolist())) for each in (turns.wall_ms, turns.cpu_ms))
    assert wall is not None
    return Latency(
        cell.runtime,
        cell.batch,
        cell.threads,
        names,
        wall,
        cell.device,
        cpu,
        turns.sittings,
        load if cell.device == "cpu" else None,
    )


def memories(contenders: Sequence[Contender], example: ExampleInputs | Inputs, settings: Settings) -> Iterator[Memory]:
    """Yield the peak activation memory at each batch size on each device, if all contenders are modules."""
    models = [contender.model for contender in contenders if contender.model is not None]
    if len(models) < len(contenders):
        return
    names = tuple(contender.name for contender in contenders)
    for device in settings.devices:
        for batch in settings.batches:
            inputs = batched(example, batch)
            yield Memory(device, batch, names, tuple(peak_memory(model, inputs, device) for model in models))
