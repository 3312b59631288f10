"""The time of every layer of every contender, in interleaved measurements."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from slimnet.benchmark.conditions import check_alike, measurement_environment
from slimnet.benchmark.contender import Cell, Contender
from slimnet.benchmark.profile import OTHER, LayerTimes, Profile
from slimnet.benchmark.runtimes.layer_timer import Forward, Key, LayerTimer
from slimnet.benchmark.runtimes.table import find_runtime
from slimnet.benchmark.turns import FEWEST_ROUNDS, WARM_UP_CALLS, Watch, looks
from slimnet.errors import UsageError
from slimnet.modules.example_inputs import ExampleInputs, Inputs, batched

MOST_FORWARDS = 200
SAMPLES = 50
"""The number of samples to which successive forwards are averaged, since onnxruntime counts whole microseconds."""
LEAST_MS = 1e-6
"""The value for a time that is too short for the clock."""


def has_layers(cell: Cell) -> bool:
    """Whether the runtime can time single layers in this setting."""
    return find_runtime(cell.runtime).layer_timers(cell.device) is not None


def without_layers(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Which runtimes among these settings do not time single layers, one line each."""
    runtimes = dict.fromkeys((cell.runtime, cell.device) for cell in cells if not has_layers(cell))
    return tuple(find_runtime(name).why_no_layers(device) for name, device in runtimes)


def profile(
    contenders: Sequence[Contender],
    example: ExampleInputs | Inputs,
    cell: Cell,
    seconds: float,
    watch: Watch | None = None,
) -> Profile:
    """The time of every layer in one setting, measured for about `seconds` in total.

    In torch a module's time is that of its forward without its submodules; the ops of containers are listed under the
    class of the container. On the CPU this includes the overhead of the hooks, about 2 µs for each module; on a GPU
    times are those of events in the stream. Times of onnxruntime are from its profile of the optimised graph, where
    additions and activations can be fused into the preceding convolution.

    Raises:
        UsageError: a contender does not run on these inputs, or the runtime cannot time single layers there.
    """
    runtime, inputs = find_runtime(cell.runtime), batched(example, cell.batch)
    make = runtime.layer_timers(cell.device)
    if make is None:
        raise UsageError(f"{runtime.why_no_layers(cell.device)}; leave the layers out")
    with measurement_environment(cell), tempfile.TemporaryDirectory() as folder:
        timers = [
            make(contender, cell, runtime.inputs_of(contender, inputs), Path(folder) / str(number))
            for number, contender in enumerate(contenders)
        ]
        check_alike(contenders, [timer.run for timer in timers], inputs, runtime)
        warm = 1 + _take_turns(timers, seconds, looks(time.perf_counter, seconds, watch))
        noted = [_averaged(timer.forwards()[warm:]) for timer in timers]
    names = tuple(contender.name for contender in contenders)
    rows = rows_of([timer.macs for timer in timers], noted)
    return Profile(cell.runtime, cell.batch, cell.threads, names, rows, cell.device)


def _take_turns(timers: Sequence[LayerTimer], seconds: float, look: Callable[[], None] | None) -> int:
    """Run all timers, interleaved; returns the number of warm-up forwards of each."""
    for timer in timers:
        for _ in range(WARM_UP_CALLS):
            timer.run()
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < FEWEST_ROUNDS or (time.perf_counter() < end and rounds < MOST_FORWARDS):
        for timer in timers if rounds % 2 else reversed(timers):
            timer.run()
        rounds += 1
        if look is not None:
            look()
    return WARM_UP_CALLS


def _averaged(forwards: Sequence[Forward]) -> dict[Key, tuple[float, ...]]:
    """The samples of every row: means over successive forwards, in milliseconds."""
    keys = list(dict.fromkeys(key for forward in forwards for key in forward))
    block = max(1, len(forwards) // SAMPLES)
    whole = len(forwards) // block * block
    table = np.array([[forward.get(key, 0.0) for key in keys] for forward in forwards[:whole]])
    means = np.maximum(table.reshape(-1, block, len(keys)).mean(axis=1), LEAST_MS)
    return {key: tuple(means[:, column].tolist()) for column, key in enumerate(keys)}


def rows_of(
    macs: Sequence[Mapping[Key, int | None]], noted: Sequence[Mapping[Key, tuple[float, ...]]]
) -> tuple[LayerTimes, ...]:
    """The rows of all contenders, joined by name and kind."""
    layers = dict.fromkeys(key for each in (*macs, *noted) for key in each if key[1] != OTHER)
    others = dict.fromkeys(key for each in noted for key in each if key[1] == OTHER)
    found = [
        LayerTimes(*key, tuple(each.get(key) for each in macs), tuple(each.get(key) for each in noted))
        for key in layers
    ]
    nothing = tuple(0 for _ in noted)
    rest = [LayerTimes(*key, nothing, tuple(each.get(key) for each in noted)) for key in others]
    return (*found, *sorted(rest, key=lambda row: -max(row.median_ms(i) or 0.0 for i in range(len(noted)))))
