"""The prices of widths under a runtime on this machine, measured on stacks of convolutions."""

import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch

from slimnet.benchmark.conditions import measurement_environment
from slimnet.benchmark.contender import Cell, Contender
from slimnet.benchmark.runtimes.runtime import Runtime
from slimnet.benchmark.turns import Run
from slimnet.errors import UsageError
from slimnet.kernel_widths.stacks import KERNELS, Kernel, Stack
from slimnet.modules.example_inputs import Inputs
from slimnet.planning.width_prices import PERIOD, PriceCurve, WidthPrices
from slimnet.torch_state.process import collection_paused

AROUND = (16, 32, 64, 256)
"""The numbers of channels around the measured widths: each with the fifteen widths below it."""

AROUND_IF_SLOW = (16, 64)
"""The same for a runtime that takes long to prepare a network."""

GROUP_SECONDS = 0.6
"""The time for which the widths of one group take turns."""

FEWEST_ROUNDS = 7
WARM_UP_CALLS = 2
PICOSECONDS = 1e12

Progress = Callable[[int, int, str], None]
Time = Callable[[Sequence[Run], float], np.ndarray]
"""Times runs in turns for so many seconds: the least seconds of each `(len(runs),)`."""


def measure_prices(
    runtime: Runtime, threads: int, progress: Progress | None = None, time_runs: Time | None = None
) -> WidthPrices:
    """The prices of widths, in picoseconds; takes about ten seconds, and longer where the runtime compiles.

    Stacks of neighbouring widths take turns, and the least time of each counts: other programs only ever add to it.
    `progress` is called with the number of finished groups, their total, and the current one.

    Raises:
        UsageError: the runtime does not run here.
    """
    if obstacle := runtime.obstacle("cpu"):
        raise UsageError(obstacle)
    groups = tuple(product(KERNELS, AROUND_IF_SLOW if runtime.on_request else AROUND))
    cell = Cell("cpu", runtime.name, threads, 1)
    prices: dict[Kernel, dict[int, float]] = {kernel: {} for kernel in KERNELS}
    for number, (kernel, around) in enumerate(groups):
        if progress is not None:
            progress(number, len(groups), f"{kernel} convolutions up to {around} channels wide")
        stacks = [Stack(kernel, width, around) for width in range(around - PERIOD + 1, around + 1)]
        seconds = times_of(stacks, runtime, cell, time_runs or least_times)
        for stack, each in zip(stacks, seconds.tolist(), strict=True):
            prices[kernel][stack.width] = round(PICOSECONDS * each / stack.macs, 4)
    curves = {kernel: PriceCurve(tuple(found), tuple(found.values())) for kernel, found in prices.items()}
    return WidthPrices(runtime.name, curves["spatial"], curves["pointwise"], curves["depthwise"])


def times_of(stacks: Sequence[Stack], runtime: Runtime, cell: Cell, time_runs: Time) -> np.ndarray:
    """The seconds of one forward of each stack `(len(stacks),)`."""
    with measurement_environment(cell), tempfile.TemporaryDirectory() as folder:
        runs = [prepared(stack, runtime, cell, Path(folder)) for stack in stacks]
        with collection_paused():
            return time_runs(runs, GROUP_SECONDS)


def prepared(stack: Stack, runtime: Runtime, cell: Cell, folder: Path) -> Run:
    """One forward of a stack."""
    name = str(stack.width)
    if runtime.needs == "onnx":
        contender = Contender(name, onnx=stack.write_onnx(folder / f"{name}.onnx"))
    else:
        contender = Contender(name, stack.module())
    return runtime.prepare(contender, cell, Inputs.of(torch.ones(stack.shape, device="cpu")))


def least_times(runs: Sequence[Run], seconds: float) -> np.ndarray:
    """The least time of each run, in random turns for so many seconds, and at least a few."""
    dice, least, rounds = np.random.default_rng(0), np.full(len(runs), np.inf), 0
    for run in runs:
        for _ in range(WARM_UP_CALLS):
            run()
    end = time.perf_counter() + seconds
    while rounds < FEWEST_ROUNDS or time.perf_counter() < end:
        for number in dice.permutation(len(runs)).tolist():
            begin = time.perf_counter()
            runs[number]()
            least[number] = min(least[number], time.perf_counter() - begin)
        rounds += 1
    return least
