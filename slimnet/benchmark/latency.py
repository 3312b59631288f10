"""Reliable latency: interleaved measurements, medians, and a confidence interval of their ratio.

One round times every contender once, in random order, and the next one in reverse order, so that disturbances (other
processes, clock throttling, scheduling) affect all contenders equally. For the same reason a ratio is resampled by
whole rounds.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from slimnet.errors import UsageError
from slimnet.storage.field_types import NotEmpty, Positive, Size
from slimnet.torch_state.process import collection_paused

Run = Callable[[], object]
Clock = Callable[[], float]
Stopwatch = Callable[[Run, int], float]
"""Runs a function this many times and returns the seconds of one run."""

WARM_UP_CALLS = 3
WARM_UP_SECONDS = 0.1
SHORTEST_SAMPLE_SECONDS = 1e-3
FEWEST_ROUNDS = 11
MOST_ROUNDS = 400
RESAMPLES = 2000
CONFIDENCE = 0.95
NARROW_SPACE, NO_BREAK = "\u202f", "\u00a0"


@dataclass(frozen=True)
class Interval:
    """A ratio and its 95 % bootstrap confidence interval."""

    low: float
    value: float
    high: float

    @property
    def holds_one(self) -> bool:
        """Whether the interval contains 1, so that no difference is measurable."""
        return self.low <= 1.0 <= self.high

    @property
    def verdict(self) -> str:
        """The ratio in words; no difference is stated that the interval does not support."""
        if self.holds_one:
            return "no measurable difference"
        if self.value > 1.0:
            return f"{self.value:.2f}{NARROW_SPACE}× faster"
        return f"{1 / self.value:.2f}{NARROW_SPACE}× slower"

    def over(self, factor: float) -> "Interval":
        """The interval of the ratio divided by a number that is known exactly."""
        return Interval(self.low / factor, self.value / factor, self.high / factor)

    @property
    def spread(self) -> str:
        """The interval in words, in the direction of the verdict."""
        low, high = self.low, self.high
        if self.high < 1.0:
            low, high = 1 / high, 1 / low
        return f"{low:.2f}{NO_BREAK}to{NO_BREAK}{high:.2f}"

    def __str__(self) -> str:
        return f"{self.verdict} ({self.spread})"


@dataclass(frozen=True)
class Latency:
    """The time of one forward, for every contender, on one runtime at one batch size.

    `samples_ms` has a row for each contender (in the order of `names`) and a column for each round, in milliseconds.
    `threads` are those of the CPU, also for a GPU, where they only launch kernels.
    """

    runtime: str
    batch: Size
    threads: Size
    names: Annotated[tuple[str, ...], NotEmpty()]
    samples_ms: tuple[Annotated[tuple[Positive, ...], NotEmpty()], ...]
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_contenders(self.names, self.samples_ms)
        if len(set(map(len, self.samples_ms))) > 1:
            raise UsageError("one contender has more rounds than another")

    @property
    def label(self) -> str:
        """The runtime, the device and the batch size, in words."""
        return f"{place(self.runtime, self.device)}, batch {self.batch}"

    def images_per_second(self, contender: int) -> float:
        """The throughput at the median time."""
        return 1e3 * self.batch / self.median_ms(contender)

    def median_ms(self, contender: int) -> float:
        """The median time of one forward of the whole batch, in milliseconds."""
        return float(np.median(self.samples_ms[contender]))

    def speedup(self, contender: int = -1, reference: int = 0) -> Interval:
        """The speed-up of a contender over the reference: the ratio of the two medians."""
        return ratio_interval(self.samples_ms[reference], self.samples_ms[contender])


def check_contenders(names: Sequence[str], *rows: Sequence[Any]) -> None:
    """Refuse rows that do not have one value for each contender.

    Raises:
        UsageError: a row has another length.
    """
    if any(len(row) != len(names) for row in rows):
        raise UsageError("a row has more or fewer values than there are contenders")


def place(runtime: str, device: str) -> str:
    """A runtime, with the device unless it is the CPU."""
    return runtime if device == "cpu" else f"{runtime} on {device}"


def labels(latencies: Sequence[Latency]) -> list[str]:
    """A label for each latency, with the number of threads if these differ."""
    several = len({latency.threads for latency in latencies}) > 1
    return [
        f"{each.label}, {each.threads} thread{'s' if each.threads > 1 else ''}" if several else each.label
        for each in latencies
    ]


def ratio_interval(reference: Sequence[float], contender: Sequence[float]) -> Interval:
    """median(reference) ÷ median(contender) with its bootstrap interval.

    Block bootstrap: blocks of adjacent rounds are resampled, since noise on a shared machine comes in bursts.
    Resampling single rounds, which are correlated, would make the interval too narrow. The seed is fixed.
    """
    first, second = np.asarray(reference, dtype=float), np.asarray(contender, dtype=float)
    rounds = len(first)
    block = max(1, round(rounds ** (1 / 3)))
    starts = np.random.default_rng(0).integers(rounds, size=(RESAMPLES, -(-rounds // block), 1))
    drawn = ((starts + np.arange(block)) % rounds).reshape(RESAMPLES, -1)[:, :rounds]
    ratios = np.median(first[drawn], axis=1) / np.median(second[drawn], axis=1)
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = float(np.median(first) / np.median(second))
    return Interval(min(float(low), value), value, max(float(high), value))


def interleave(
    runs: Sequence[Run], seconds: float, clock: Clock = time.perf_counter, stopwatch: Stopwatch | None = None
) -> np.ndarray:
    """Time the runs, interleaved, for about `seconds` in total; milliseconds `(len(runs), rounds)`.

    Every run is warmed up first. A run that is too short for the clock is repeated within a sample, and its time
    divided. There are at least 11 rounds, however slow they are. `stopwatch` times one run (default: by the clock),
    such as by events on a GPU.
    """
    timed = stopwatch or wall_clock(clock)
    repeats = [_repeats(run, clock, timed) for run in runs]
    rounds: list[list[float]] = []
    order: list[int] = []
    dice = np.random.default_rng(0)
    with collection_paused():
        end = clock() + seconds
        while len(rounds) < FEWEST_ROUNDS or (clock() < end and len(rounds) < MOST_ROUNDS):
            if len(rounds) % 2 == 0:
                order = dice.permutation(len(runs)).tolist()
            rounds.append(_round(runs, repeats, timed, order))
            order.reverse()
    return np.array(rounds).T * 1e3


def wall_clock(clock: Clock = time.perf_counter) -> Stopwatch:
    """A stopwatch for runs that are finished when they return."""

    def timed(run: Run, repeats: int) -> float:
        begin = clock()
        for _ in range(repeats):
            run()
        return (clock() - begin) / repeats

    return timed


def _round(runs: Sequence[Run], repeats: Sequence[int], timed: Stopwatch, order: Sequence[int]) -> list[float]:
    times = [0.0] * len(runs)
    for index in order:
        times[index] = timed(runs[index], repeats[index])
    return times


def _repeats(run: Run, clock: Clock, timed: Stopwatch) -> int:
    """Warm a run up; returns how often it must be repeated for one sample."""
    begin, fastest, calls = clock(), float("inf"), 0
    while calls < WARM_UP_CALLS or clock() - begin < WARM_UP_SECONDS:
        fastest, calls = min(fastest, timed(run, 1)), calls + 1
    return max(1, min(1000, round(SHORTEST_SAMPLE_SECONDS / max(fastest, 1e-9))))
