"""Intervals of ratios on synthetic series with a known ratio, whose noise lasts for many rounds."""

import numpy as np
import pytest

from slimnet.benchmark import intervals, ratio_interval
from slimnet.benchmark.intervals import Interval, block_length

HALVES = (200, 200)


def autoregressive(rng: np.random.Generator, memory: float, rounds: int = 400) -> np.ndarray:
    """A stationary AR(1) series of standard deviation 1."""
    series = rng.normal(0, np.sqrt(1 - memory**2), rounds)
    series[0] = rng.normal()
    for index in range(1, rounds):
        series[index] += memory * series[index - 1]
    return series


def lasting(rng: np.random.Generator, memory: float) -> tuple[np.ndarray, np.ndarray]:
    """Two contenders of ratio 1.3, each with noise of its own that lasts."""
    first, second = (np.exp(0.05 * autoregressive(rng, memory)) for _ in range(2))
    return 1.3 * first, second


def switching(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two contenders of ratio 1.3, and another program that slows the second down, 12 rounds in 40."""
    state = np.zeros(400, dtype=bool)
    for index in range(1, 400):
        state[index] = rng.random() < (11 / 12 if state[index - 1] else 1 / 28)
    return 1.3 * rng.lognormal(0, 0.05, 400), rng.lognormal(0, 0.05, 400) * np.where(state, 3.0, 1.0)


def true_ratio_of_switching() -> float:
    """The ratio of the medians of two million rounds, in which the other program works 12 rounds in 40."""
    rng = np.random.default_rng(9)
    slowed = np.where(rng.random(2_000_000) < 0.3, 3.0, 1.0)
    return float(1.3 / np.median(slowed * rng.lognormal(0, 0.05, 2_000_000)))


def coverage(draw, ratio: float, times: int, sittings: tuple[int, ...] = HALVES) -> float:
    """How often the interval holds the ratio."""
    rng = np.random.default_rng(1)
    found = [ratio_interval(*draw(rng), sittings) for _ in range(times)]
    return float(np.mean([each.low <= ratio <= each.high for each in found]))


def resampled_by_cube_root(rng: np.random.Generator, memory: float) -> bool:
    """Whether an interval of blocks of the cube root of the rounds, as there was before, holds the ratio."""
    first, second = lasting(rng, memory)
    starts = rng.integers(400, size=(400, 58, 1))
    drawn = ((starts + np.arange(7)) % 400).reshape(400, -1)[:, :400]
    low, high = np.quantile(np.median(first[drawn], axis=1) / np.median(second[drawn], axis=1), [0.025, 0.975])
    return bool(low <= 1.3 <= high)


@pytest.mark.parametrize(("memory", "least"), [(0.0, 0.9), (0.8, 0.88), (0.95, 0.8)])
def test_the_interval_holds_the_ratio_also_where_noise_lasts(memory, least, monkeypatch):
    """Oracle: series of a known ratio; nominal are 95 %."""
    monkeypatch.setattr(intervals, "RESAMPLES", 200)
    assert coverage(lambda rng: lasting(rng, memory), 1.3, 60) >= least


def test_short_blocks_fail_where_noise_lasts():
    """The series above are a test: the blocks used before hold the ratio in little more than half of them."""
    rng = np.random.default_rng(1)
    assert np.mean([resampled_by_cube_root(rng, 0.95) for _ in range(40)]) < 0.7


def test_the_interval_holds_the_ratio_where_another_program_comes_and_goes(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 200)
    assert coverage(switching, true_ratio_of_switching(), 60) >= 0.85


def test_the_block_length_is_that_of_the_theory():
    """Oracle: for an AR(1) series of memory ρ the best circular block is (6 n (ρ / (1 - ρ²))²)^⅓ rounds."""
    rng = np.random.default_rng(0)
    for memory in (0.3, 0.5, 0.7):
        best = (6 * 4000 * (memory / (1 - memory**2)) ** 2) ** (1 / 3)
        found = np.median([block_length(autoregressive(rng, memory, 4000)) for _ in range(20)])
        assert found == pytest.approx(best, rel=0.2)
    assert block_length(rng.normal(size=4000)) <= 4
    assert block_length(np.ones(50)) == 1


def test_sittings_that_disagree_widen_the_interval():
    """A second sitting in which the contender is 1.5 times faster, each with 1 % of noise."""
    rng = np.random.default_rng(0)
    first, second = rng.lognormal(0, 0.01, 400), rng.lognormal(0, 0.01, 400)
    agreed = ratio_interval(first, second, HALVES)
    second[200:] /= 1.5
    torn = ratio_interval(first, second, HALVES)
    assert agreed.high / agreed.low < 1.01
    assert torn.low < 1 / 1.2
    assert torn.high > 1.5 * 1.2


def test_the_interval_spans_both_sittings():
    """Times of which 8 in 12 are ten times as long in the first sitting, and none in the second."""
    first, second = np.ones(24), np.ones(24)
    first[:8] = 10.0
    found = ratio_interval(first, second, (12, 12))
    assert found.low <= 1.0 <= found.value
    assert found.high >= 10.0 * (1 - 1e-9)


def test_few_rounds_widen_the_interval():
    """Oracle: by hand. Student's t of 4 degrees of freedom is 2.776, the normal distribution's quantile 1.960."""
    assert intervals._student(4) == pytest.approx(2.776 / 1.960, rel=1e-3)
    assert intervals._student(1e9) == pytest.approx(1)


def test_what_is_in_doubt_is_neither_faster_nor_slower():
    doubtful = Interval(1.1, 1.4, 1.8, "the times vary too much")
    assert str(doubtful) == "not measurable on this busy machine (1.10\u00a0to\u00a01.80)"
    assert not doubtful.is_faster
    assert not Interval(0.5, 0.6, 0.8, "noise").is_slower
    assert Interval(0.5, 0.6, 0.8).is_slower
    assert doubtful.over(2).doubt == doubtful.doubt
