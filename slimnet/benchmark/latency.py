"""Latency that can be believed: contenders timed in turn, medians, and an interval around their ratio.

One round times every contender once, in an order that turns round from round to round, so that whatever the
machine does meanwhile (another process, a clock that falls as it warms) meets all of them alike. A ratio is
resampled by whole rounds, for the same reason.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

Run = Callable[[], object]
Clock = Callable[[], float]

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
        """Whether the measurement cannot tell the two apart."""
        return self.low <= 1.0 <= self.high

    @property
    def verdict(self) -> str:
        """The ratio in words, which claim nothing that the interval does not hold."""
        if self.holds_one:
            return "no measurable difference"
        if self.value > 1.0:
            return f"{self.value:.2f}{NARROW_SPACE}× faster"
        return f"{1 / self.value:.2f}{NARROW_SPACE}× slower"

    @property
    def spread(self) -> str:
        """The interval in words, the way round that the verdict has it."""
        low, high = self.low, self.high
        if self.high < 1.0:
            low, high = 1 / high, 1 / low
        return f"{low:.2f}{NO_BREAK}to{NO_BREAK}{high:.2f}"

    def __str__(self) -> str:
        return f"{self.verdict} ({self.spread})"


@dataclass(frozen=True)
class Latency:
    """How long one forward takes, for every contender, on one runtime at one batch size.

    `samples_ms` has a row per contender (in the order of `names`) and a column per round, in milliseconds.
    """

    runtime: str
    batch: int
    threads: int
    names: tuple[str, ...]
    samples_ms: tuple[tuple[float, ...], ...]

    def median_ms(self, contender: int) -> float:
        """The median time of one forward of the whole batch, in milliseconds."""
        return float(np.median(self.samples_ms[contender]))

    def speedup(self, contender: int = -1, reference: int = 0) -> Interval:
        """How many times faster a contender is than the reference: the ratio of the two medians."""
        return ratio_interval(self.samples_ms[reference], self.samples_ms[contender])


def ratio_interval(reference: Sequence[float], contender: Sequence[float]) -> Interval:
    """median(reference) ÷ median(contender) with its bootstrap interval.

    Blocks of neighbouring rounds are drawn rather than single ones, since noise on a shared machine comes
    in bursts: drawn one by one, correlated rounds would make the interval too narrow. The seed is fixed.
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


def interleave(runs: Sequence[Run], seconds: float, clock: Clock = time.perf_counter) -> np.ndarray:
    """Time the runs in turn for about `seconds` in all, in milliseconds `(len(runs), rounds)`.

    Every run is warmed up first. A run too short for the clock is repeated within a sample and its time
    divided. There are never fewer than 11 rounds, however slow.
    """
    repeats = [_repeats(run, clock) for run in runs]
    rounds: list[list[float]] = []
    with _no_garbage_collection():
        end = clock() + seconds
        while len(rounds) < FEWEST_ROUNDS or (clock() < end and len(rounds) < MOST_ROUNDS):
            rounds.append(_round(runs, repeats, clock, backwards=len(rounds) % 2 == 1))
    return np.array(rounds).T * 1e3


def _round(runs: Sequence[Run], repeats: Sequence[int], clock: Clock, *, backwards: bool) -> list[float]:
    times = [0.0] * len(runs)
    order = range(len(runs))
    for index in reversed(order) if backwards else order:
        times[index] = _time(runs[index], repeats[index], clock)
    return times


def _time(run: Run, repeats: int, clock: Clock) -> float:
    begin = clock()
    for _ in range(repeats):
        run()
    return (clock() - begin) / repeats


def _repeats(run: Run, clock: Clock) -> int:
    """Warm a run up, and say how often it must be repeated for one sample."""
    begin, fastest, calls = clock(), float("inf"), 0
    while calls < WARM_UP_CALLS or clock() - begin < WARM_UP_SECONDS:
        fastest, calls = min(fastest, _time(run, 1, clock)), calls + 1
    return max(1, min(1000, round(SHORTEST_SAMPLE_SECONDS / max(fastest, 1e-9))))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
