"""Runs timed in turns, in two sittings with a pause between them.

One round times every contender once, in random order, and the next one in reverse order, so that disturbances (other
processes, clock throttling, scheduling) affect all contenders equally. What lasts as long as a sitting does not: it
shows as a difference between the sittings.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from slimnet.torch_state.process import collection_paused

Run = Callable[[], object]
Clock = Callable[[], float]
Stopwatch = Callable[[Run, int], float]
"""Runs a function this many times and returns the seconds of one run."""
Watch = Callable[[float], None]
"""Called with the share of a measurement that is done, 0..1."""

WARM_UP_CALLS = 3
WARM_UP_SECONDS = 0.1
SHORTEST_SAMPLE_SECONDS = 1e-3
FEWEST_ROUNDS = 11
MOST_ROUNDS = 400
SITTINGS = 2
SITTING_SHARE = 0.4
"""The longest share of the time that a sitting takes; the pause takes the rest, so that they are far apart."""
SECONDS_BETWEEN_LOOKS = 0.5
FINE_ENOUGH = 1e-5
"""The coarsest clock of CPU time, in seconds, that can time a sample."""


@dataclass(frozen=True)
class Turns:
    """The times of runs `(len(runs), rounds)` in milliseconds.

    `cpu_ms` is their CPU time, None if it was not measured. `sittings` are the numbers of
    rounds in a row, with a pause after each.
    """

    wall_ms: np.ndarray
    cpu_ms: np.ndarray | None
    sittings: tuple[int, ...]


def cpu_clock() -> Clock | None:
    """The clock of this process's CPU time; None if the system has none that is fine enough."""
    return time.process_time if time.get_clock_info("process_time").resolution <= FINE_ENOUGH else None


def take_sittings(
    runs: Sequence[Run],
    seconds: float,
    *,
    clock: Clock = time.perf_counter,
    stopwatch: Stopwatch | None = None,
    cpu: Clock | None = None,
    sleep: Callable[[float], None] = time.sleep,
    watch: Watch | None = None,
) -> Turns:
    """Time the runs in turns, in two sittings within about `seconds`, and one third of it apart if that is possible.

    `cpu` is a clock of CPU time, for runs of one thread. Otherwise as `interleave`.
    """
    timed, fewest = stopwatch or wall_clock(clock), -(-FEWEST_ROUNDS // SITTINGS)
    begin, most = clock(), MOST_ROUNDS // SITTINGS
    look = looks(clock, seconds, watch)
    sittings = []
    for number in range(SITTINGS):
        if number:
            apart = (1 - SITTING_SHARE) * seconds - (clock() - begin)
            sleep(max(apart, (1 - SITTINGS * SITTING_SHARE) * seconds))
        repeats = [_repeats(run, clock, timed) for run in runs]
        end = clock() + SITTING_SHARE * seconds
        rounds = _rounds(runs, repeats, timed, cpu, number)
        with collection_paused():
            sittings.append(_until(rounds, end, clock, fewest, most, look))
    table = np.concatenate(sittings).transpose(1, 2, 0) * 1e3
    return Turns(table[0], None if cpu is None else table[1], tuple(map(len, sittings)))


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
    with collection_paused():
        found = _until(_rounds(runs, repeats, timed, None, 0), clock() + seconds, clock, FEWEST_ROUNDS, MOST_ROUNDS)
    milliseconds: np.ndarray = found[:, 0].T * 1e3
    return milliseconds


def wall_clock(clock: Clock = time.perf_counter) -> Stopwatch:
    """A stopwatch for runs that are finished when they return."""

    def timed(run: Run, repeats: int) -> float:
        begin = clock()
        for _ in range(repeats):
            run()
        return (clock() - begin) / repeats

    return timed


def _until(
    rounds: Iterator[np.ndarray],
    end: float,
    clock: Clock,
    fewest: int,
    most: int,
    look: Callable[[], None] | None = None,
) -> np.ndarray:
    """Rounds until `end`, at least and at most so many: seconds `(rounds, 2, runs)`."""
    found: list[np.ndarray] = []
    while len(found) < fewest or (clock() < end and len(found) < most):
        found.append(next(rounds))
        if look is not None:
            look()
    return np.array(found)


def _rounds(
    runs: Sequence[Run], repeats: Sequence[int], timed: Stopwatch, cpu: Clock | None, seed: int
) -> Iterator[np.ndarray]:
    """Yield the seconds of one round after the other `(2, runs)`: by the stopwatch, and of the CPU."""
    dice = np.random.default_rng(seed)
    while True:
        order = dice.permutation(len(runs)).tolist()
        for turn in (order, order[::-1]):
            times = np.zeros((2, len(runs)))
            for index in turn:
                before = 0.0 if cpu is None else cpu()
                times[0, index] = timed(runs[index], repeats[index])
                times[1, index] = 0.0 if cpu is None else (cpu() - before) / repeats[index]
            yield times


def looks(clock: Clock, seconds: float, watch: Watch | None) -> Callable[[], None] | None:
    """A function that reports the share of the time that has passed to `watch`, at most twice a second."""
    if watch is None:
        return None
    begin = last = clock()

    def look() -> None:
        nonlocal last
        now = clock()
        if now - last >= SECONDS_BETWEEN_LOOKS:
            last = now
            watch(min(1.0, (now - begin) / seconds))

    return look


def _repeats(run: Run, clock: Clock, timed: Stopwatch) -> int:
    """Warm a run up; returns how often it must be repeated for one sample."""
    begin, fastest, calls = clock(), float("inf"), 0
    while calls < WARM_UP_CALLS or clock() - begin < WARM_UP_SECONDS:
        fastest, calls = min(fastest, timed(run, 1)), calls + 1
    return max(1, min(1000, round(SHORTEST_SAMPLE_SECONDS / max(fastest, 1e-9))))
