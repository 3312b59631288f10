"""The confidence interval of a ratio of medians, from times that depend on those before them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
TOO_WIDE = 1.5
"""The upper end of an interval ÷ its lower end from which on the ratio counts as not measurable."""
BUSY = "not measurable on this busy machine"
NARROW_SPACE, NO_BREAK = "\u202f", "\u00a0"


@dataclass(frozen=True)
class Interval:
    """A ratio and its 95 % bootstrap confidence interval; `doubt` is why it is not measurable, empty if it is."""

    low: float
    value: float
    high: float
    doubt: str = ""

    @property
    def holds_one(self) -> bool:
        """Whether the interval contains 1, so that no difference is measurable."""
        return self.low <= 1.0 <= self.high

    @property
    def is_faster(self) -> bool:
        """Whether the ratio is measurable and above 1."""
        return not self.doubt and self.low > 1.0

    @property
    def is_slower(self) -> bool:
        """Whether the ratio is measurable and below 1."""
        return not self.doubt and self.high < 1.0

    @property
    def verdict(self) -> str:
        """The ratio in words; no difference is stated that the interval does not support."""
        if self.doubt:
            return BUSY
        return "no measurable difference" if self.holds_one else gain(self.value)

    def over(self, factor: float) -> "Interval":
        """The interval of the ratio divided by a number that is known exactly."""
        return replace(self, low=self.low / factor, value=self.value / factor, high=self.high / factor)

    @property
    def spread(self) -> str:
        """The interval in words, in the direction of the verdict."""
        low, high = (1 / self.high, 1 / self.low) if self.is_slower else (self.low, self.high)
        return f"{low:.2f}{NO_BREAK}to{NO_BREAK}{high:.2f}"

    def __str__(self) -> str:
        return f"{self.verdict} ({self.spread})"


def gain(ratio: float) -> str:
    """A ratio alone in words."""
    return f"{max(ratio, 1 / ratio):.2f}{NARROW_SPACE}× {'faster' if ratio >= 1.0 else 'slower'}"


def ratio_interval(reference: Sequence[float], contender: Sequence[float], sittings: Sequence[int] = ()) -> Interval:
    """median(reference) ÷ median(contender) with its bootstrap interval.

    Values at the same index belong to the same round. `sittings` are the numbers of rounds measured in a row, with a
    pause after each (default: all in a row).

    Block bootstrap: blocks of adjacent rounds are resampled within each sitting, since what other programs do lasts for
    many rounds. Blocks have twice the length that the autocorrelation of "above the median" asks for, as estimated from
    a series that is short, and at most a quarter of a sitting. With few blocks the interval is widened by the ratio of
    Student's t to the normal quantile. It spans the ratios of all sittings; if these differ by more than their own
    spread explains, it is widened by that difference on each side. The seed is fixed.
    """
    return _interval(tuple(map(float, reference)), tuple(map(float, contender)), tuple(sittings))


@lru_cache(maxsize=256)  # tables, headlines and figures ask for the same one
def _interval(reference: tuple[float, ...], contender: tuple[float, ...], sittings: tuple[int, ...]) -> Interval:
    first, second = np.array(reference), np.array(contender)
    parts = _parts(len(first), sittings)
    above, also = (np.sign(each - np.median(each)) for each in (first, second))
    longest = 2 * max(map(block_length, (above, also, above - also)))
    dice = np.random.default_rng(0)
    drawn, blocks = [], 0.0
    for part in parts:
        rounds = part.stop - part.start
        length = max(1, min(rounds // 4, max(longest, round(rounds ** (1 / 3)))))
        drawn.append(part.start + _resampled(rounds, length, dice))
        blocks += rounds / length
    value = float(_log_ratio(first, second))
    ratios = _log_ratio(first[np.hstack(drawn)], second[np.hstack(drawn)])
    widening = _student(blocks - len(parts))
    low, high = value + widening * (np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) - value)
    alone = [float(_log_ratio(first[part], second[part])) for part in parts]
    spreads = [float(_log_ratio(first[rows], second[rows]).std()) for rows in drawn]
    differ = _disagreement(alone, widening * np.array(spreads))
    least, most = min(float(low), value, *alone) - differ, max(float(high), value, *alone) + differ
    return Interval(math.exp(least), math.exp(value), math.exp(most))


def block_length(series: np.ndarray) -> int:
    """The length of blocks for a circular block bootstrap, from the autocorrelation of a stationary series.

    The rule of Politis and White (2004), with the correction of Patton, Politis and White (2009).
    """
    rounds, centred = len(series), series - series.mean()
    if rounds < 4 or not centred.any():
        return 1
    spectrum = np.fft.rfft(centred, 2 * rounds)
    covariance = np.fft.irfft(spectrum * spectrum.conj())[:rounds] / rounds
    few = max(5, math.ceil(math.sqrt(math.log10(rounds))))
    most = min(rounds - 1, math.ceil(math.sqrt(rounds)) + few)
    small = np.abs(covariance[1:]) < 2 * math.sqrt(math.log10(rounds) / rounds) * covariance[0]
    last = next((lag for lag in range(most) if small[lag : lag + few].all()), most)
    window = max(1, min(2 * max(last, 1), most))
    lags = np.arange(-window, window + 1)
    tapered = np.minimum(1.0, 2 * (1 - np.abs(lags) / window)) * covariance[np.abs(lags)]
    slope, level = float((np.abs(lags) * tapered).sum()), float(tapered.sum())
    longest = math.ceil(min(3 * math.sqrt(rounds), rounds / 3))
    if level <= 0:
        return longest
    return max(1, min(longest, round((1.5 * slope**2 / level**2 * rounds) ** (1 / 3))))


def _parts(rounds: int, sittings: Sequence[int]) -> list[slice]:
    ends = np.cumsum(sittings or [rounds]).tolist()
    return [slice(begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


def _resampled(rounds: int, length: int, dice: np.random.Generator) -> np.ndarray:
    """Indices of rounds `(RESAMPLES, rounds)` in blocks, the first round after the last."""
    starts = dice.integers(rounds, size=(RESAMPLES, -(-rounds // length), 1))
    return ((starts + np.arange(length)) % rounds).reshape(RESAMPLES, -1)[:, :rounds]


def _log_ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.log(np.median(first, axis=-1) / np.median(second, axis=-1))


def _student(freedom: float) -> float:
    """The quantile of Student's t ÷ that of the normal distribution."""
    from scipy.special import ndtri, stdtrit

    quantile = (1 + CONFIDENCE) / 2
    return float(stdtrit(max(1.0, freedom), quantile) / ndtri(quantile))


def _disagreement(values: Sequence[float], spreads: np.ndarray) -> float:
    """The largest difference between sittings, as a logarithm; 0 if their own spread explains it."""
    lowest, highest = int(np.argmin(values)), int(np.argmax(values))
    difference = values[highest] - values[lowest]
    return difference if difference > 1.96 * math.hypot(spreads[lowest], spreads[highest]) else 0.0
