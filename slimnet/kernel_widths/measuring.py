"""The prices of widths under a runtime on this machine, measured on stacks of convolutions."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path

import numpy as np
import torch

from slimnet.benchmark.conditions import measurement_environment
from slimnet.benchmark.contender import Cell, Contender
from slimnet.benchmark.runtimes.runtime import Runtime
from slimnet.benchmark.turns import Run, cpu_clock
from slimnet.errors import UsageError
from slimnet.kernel_widths.stacks import KERNELS, Kernel, Stack
from slimnet.modules.example_inputs import Inputs
from slimnet.planning.width_prices import PERIOD, PriceCurve, WidthPrices
from slimnet.torch_state.process import collection_paused

AROUND = (16, 32, 64, 160)
"""The numbers of channels around the measured widths: each with the fifteen widths below it."""

AROUND_IF_SLOW = (16, 64)
"""The same for a runtime that takes long to prepare a network."""

GROUP_SECONDS = 0.5
"""The time for which the widths of one group take turns."""

FEWEST_ROUNDS = 24
MOST_ROUNDS = 96
TOGETHER = 4
"""The number of rounds in a row of which the least time counts: other programs only ever add to it."""

WARM_UP_CALLS = 2
PICOSECONDS = 1e12

Progress = Callable[[int, int, str], None]
Time = Callable[[Sequence[Run], int], np.ndarray]
"""Times runs in turns on a number of threads: seconds `(rounds, len(runs))`."""


def measure_prices(
    runtime: Runtime, threads: int, progress: Progress | None = None, time_runs: Time | None = None
) -> WidthPrices:
    """The prices of widths, in picoseconds; takes about ten seconds, and longer where the runtime compiles.

    Stacks of neighbouring widths take turns. `progress` is called with the number of finished groups, their total, and
    the current one; `time_runs` times stacks (default: by the clock of this machine).

    Raises:
        UsageError: the runtime does not run here.
    """
    if obstacle := runtime.obstacle("cpu"):
        raise UsageError(obstacle)
    around = AROUND_IF_SLOW if runtime.on_request else AROUND
    groups = tuple(product(KERNELS, around))
    cell = Cell("cpu", runtime.name, threads, 1)
    found: dict[Kernel, list[Group]] = {kernel: [] for kernel in KERNELS}
    for number, (kernel, most) in enumerate(groups):
        if progress is not None:
            progress(number, len(groups), f"{kernel} convolutions up to {most} channels wide")
        stacks = [Stack(kernel, width, most) for width in range(most - PERIOD + 1, most + 1)]
        found[kernel].append(Group.of(stacks, samples_of(stacks, runtime, cell, time_runs or take_turns)))
    spatial, pointwise, depthwise = (curve_of(found[kernel]) for kernel in KERNELS)
    return WidthPrices(runtime.name, spatial, pointwise, depthwise)


@dataclass(frozen=True)
class Group:
    """Prices of neighbouring widths, and their standard error, relative to them."""

    widths: tuple[int, ...]
    prices: tuple[float, ...]
    error: float

    @classmethod
    def of(cls, stacks: Sequence[Stack], samples: np.ndarray) -> "Group":
        """From samples in seconds `(rounds, len(stacks))`."""
        typical, error = typical_times(samples)
        prices = PICOSECONDS * typical / np.array([stack.macs for stack in stacks])
        return cls(tuple(stack.width for stack in stacks), tuple(np.round(prices, 4).tolist()), error)


def curve_of(groups: Sequence[Group]) -> PriceCurve:
    """The groups of one kernel, in ascending order, as a curve."""
    widths = tuple(chain.from_iterable(group.widths for group in groups))
    prices = tuple(chain.from_iterable(group.prices for group in groups))
    error = math.sqrt(sum(group.error**2 for group in groups) / len(groups))
    return PriceCurve(widths, prices, round(min(1.0, error), 4))


def typical_times(samples: np.ndarray) -> tuple[np.ndarray, float]:
    """The typical time of each run `(runs,)`, from samples `(rounds, runs)`, and its relative standard error.

    The least of a few rounds in a row is taken, relative to that of the other runs in the same rounds, so that neither
    a disturbance nor a spell in which the machine is faster changes it much; and then the median. The error is that by
    which the medians of every other such few rounds differ.
    """
    whole = len(samples) // TOGETHER * TOGETHER
    least = np.log(samples[:whole].reshape(-1, TOGETHER, samples.shape[1]).min(axis=1))
    level = least.mean(axis=1, keepdims=True)
    relative = least - level
    halves = [np.median(relative[first::2], axis=0) for first in (0, 1)]
    error = float(np.sqrt(np.mean((halves[0] - halves[1]) ** 2)) / 2)
    return np.exp(np.median(level) + np.median(relative, axis=0)), error


def samples_of(stacks: Sequence[Stack], runtime: Runtime, cell: Cell, time_runs: Time) -> np.ndarray:
    """Samples of one forward of each stack, in seconds `(rounds, len(stacks))`."""
    with measurement_environment(cell), tempfile.TemporaryDirectory() as folder:
        runs = [prepared(stack, runtime, cell, Path(folder)) for stack in stacks]
        with collection_paused():
            return time_runs(runs, cell.threads)


def prepared(stack: Stack, runtime: Runtime, cell: Cell, folder: Path) -> Run:
    """One forward of a stack."""
    name = str(stack.width)
    if runtime.needs == "onnx":
        contender = Contender(name, onnx=stack.write_onnx(folder / f"{name}.onnx"))
    else:
        contender = Contender(name, stack.module())
    return runtime.prepare(contender, cell, Inputs.of(torch.ones(stack.shape, device="cpu")))


def take_turns(runs: Sequence[Run], threads: int, seconds: float = GROUP_SECONDS) -> np.ndarray:
    """Samples of all runs in seconds `(rounds, len(runs))`, in random turns.

    On one thread they are CPU times, if these are counted finely: other programs hardly change them.
    """
    clock = (cpu_clock() if threads == 1 else None) or time.perf_counter
    dice = np.random.default_rng(0)
    samples: list[np.ndarray] = []
    for run in runs:
        for _ in range(WARM_UP_CALLS):
            run()
    end = time.perf_counter() + seconds
    while len(samples) < FEWEST_ROUNDS or (time.perf_counter() < end and len(samples) < MOST_ROUNDS):
        samples.append(np.zeros(len(runs)))
        for number in dice.permutation(len(runs)).tolist():
            begin = clock()
            runs[number]()
            samples[-1][number] = clock() - begin
    return np.array(samples)
