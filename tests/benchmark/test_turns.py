"""Turns and sittings by a clock of our own, and what a latency makes of them; no real time is measured."""

import dataclasses

import numpy as np
import pytest

from slimnet.benchmark import Latency
from slimnet.benchmark.load import load_meter, overload
from slimnet.benchmark.turns import FEWEST_ROUNDS, MOST_ROUNDS, take_sittings
from slimnet.errors import UsageError

PAIR = ("dense", "slim")


class Machine:
    """A clock, a clock of CPU time, and pauses; a run takes some seconds, of which the CPU works a share."""

    def __init__(self, share: float = 1.0) -> None:
        self.now, self.cpu, self.share = 0.0, 0.0, share
        self.pauses: list[tuple[float, float]] = []

    def run(self, seconds: float):
        def call() -> None:
            self.now += seconds
            self.cpu += self.share * seconds

        return call

    def sleep(self, seconds: float) -> None:
        self.pauses.append((self.now, seconds))
        self.now += seconds

    def take(self, *times: float, seconds: float = 4.0, watch=None):
        runs = [self.run(each) for each in times]
        return take_sittings(runs, seconds, clock=lambda: self.now, cpu=lambda: self.cpu, sleep=self.sleep, watch=watch)


def test_there_are_two_sittings_within_the_time_and_a_pause_between():
    """Oracle: by hand. Two sittings of 1.6 s at most, and 0.8 s at least between them."""
    machine = Machine()
    turns = machine.take(0.008, 0.004)
    assert len(turns.sittings) == 2
    assert sum(turns.sittings) == turns.wall_ms.shape[1]
    ((_, pause),) = machine.pauses
    assert pause == pytest.approx(0.8)
    assert machine.now == pytest.approx(4.4, abs=0.1), "the time, and two warm-ups"
    assert np.allclose(turns.wall_ms, [[8.0], [4.0]])


def test_quick_runs_wait_for_the_second_sitting():
    """Oracle: 200 rounds of 3 ms are 0.6 s and the warm-up 0.2 s, but the second sitting begins at 2.4 s."""
    machine = Machine()
    turns = machine.take(0.002, 0.001)
    assert turns.sittings == (MOST_ROUNDS // 2, MOST_ROUNDS // 2)
    ((begun, pause),) = machine.pauses
    assert begun + pause == pytest.approx(2.4)


def test_slow_runs_have_enough_rounds():
    assert sum(Machine().take(30.0, 20.0).sittings) == FEWEST_ROUNDS + 1


def test_cpu_time_is_taken_beside_the_clock():
    turns = Machine(share=0.25).take(0.008, 1e-5)
    assert np.allclose(turns.cpu_ms, [[2.0], [0.0025]])
    assert np.allclose(turns.wall_ms, [[8.0], [0.01]])


def test_progress_is_reported():
    shares: list[float] = []
    Machine().take(0.008, 0.004, watch=shares.append)
    assert shares == sorted(shares)
    assert 5 <= len(shares) <= 8
    assert 0.1 < shares[0] < 0.2
    assert shares[-1] > 0.9


def latency(slim: float = 2.0, share: float = 1.0, threads: int = 1, **fields) -> Latency:
    noise = np.random.default_rng(0).lognormal(0, 0.01, (2, 40))
    wall = noise * [[4.0], [slim]]
    rows = tuple(map(tuple, wall.tolist()))
    cpu = tuple(map(tuple, (share * wall).tolist())) if threads == 1 else None
    return Latency("onnxruntime", 1, threads, PAIR, rows, cpu_ms=cpu, sittings=(20, 20), **fields)


def test_a_thread_that_had_its_core_is_measurable():
    found = latency().speedup()
    assert (found.doubt, found.is_faster) == ("", True)
    assert latency().reliable_speedup() == found
    assert latency().cpu_speedup().value == pytest.approx(found.value)


def test_a_thread_without_its_core_is_not_measurable_but_by_cpu_time():
    """Oracle: by hand. A thread that worked 45 % of the time waited the other 55 %."""
    busy = latency(share=0.45)
    assert busy.speedup().doubt == "other programs took 55 % of the time"
    assert busy.speedup().verdict == "not measurable on this busy machine"
    assert busy.cpu_speedup().doubt == ""
    assert busy.reliable_speedup() == busy.cpu_speedup()


def test_threads_without_their_cores_are_not_measurable():
    assert latency(threads=2, overload=0.1).speedup().doubt == ""
    busy = latency(threads=2, overload=0.8)
    assert busy.speedup().doubt == "other programs took 0.8 of the cores"
    assert busy.reliable_speedup() == busy.speedup(), "there is no other"


def test_sittings_that_disagree_are_not_measurable():
    found = latency()
    slowed = (*found.samples_ms[1][:20], *(2.2 * each for each in found.samples_ms[1][20:]))
    torn = dataclasses.replace(found, samples_ms=(found.samples_ms[0], slowed), cpu_ms=None)
    assert torn.speedup().doubt == "the times vary too much"
    one, other = torn.sitting_speedups()
    assert one == pytest.approx(2.0, rel=0.02)
    assert other == pytest.approx(2 / 2.2, rel=0.02)


@pytest.mark.parametrize(
    "changes", [{"sittings": (20, 21)}, {"cpu_ms": ((1.0,) * 40,)}, {"cpu_ms": ((1.0,) * 40, (1.0,) * 39)}]
)
def test_rows_that_do_not_fit_are_refused(changes):
    with pytest.raises(UsageError):
        dataclasses.replace(latency(), **changes)


def test_an_overload_is_what_there_are_no_cores_for():
    assert overload(2, 0.5, 2) == 0.5
    assert overload(1, 0.5, 2) == 0.0
    assert overload(2, None, 2) is None


def test_the_load_of_others_is_what_was_not_our_own(monkeypatch):
    """Oracle: by hand. In 2 s the cores were busy for 3, of which this process had 1.8: 0.6 cores on average."""
    busy, clock, own = iter([10.0, 13.0]), iter([0.0, 2.0]), iter([5.0, 6.8])
    monkeypatch.setattr("slimnet.benchmark.load._busy_seconds", lambda: next(busy))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("time.process_time", lambda: next(own))
    assert load_meter()() == pytest.approx(0.6)
