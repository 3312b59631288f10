"""The time of one forward of every contender, on one runtime at one batch size: samples, medians and ratios."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from slimnet.benchmark.intervals import TOO_WIDE, Interval, ratio_interval
from slimnet.benchmark.load import BUSY_CORES
from slimnet.errors import UsageError
from slimnet.storage.field_types import Amount, NotEmpty, Positive, Size

LEAST_CPU_SHARE = 0.8
"""The share of the time below which a thread did not have its core."""
REMEDY = "measure again while nothing else runs"

Samples = Annotated[tuple[Positive, ...], NotEmpty()]


@dataclass(frozen=True)
class Latency:
    """The time of one forward, for every contender, on one runtime at one batch size.

    `samples_ms` has a row for each contender (in the order of `names`) and a column for each round, in milliseconds.
    `threads` are those of the CPU, also for a GPU, where they only launch kernels. `cpu_ms` is the CPU time of the same
    forwards, None unless one thread of the CPU ran them: other programs hardly change it. `sittings` are the numbers of
    rounds in a row, with a pause after each; empty if there was no pause. `overload` is the number of cores by which
    the threads and other programs together exceeded those there are, None if it is not known.
    """

    runtime: str
    batch: Size
    threads: Size
    names: Annotated[tuple[str, ...], NotEmpty()]
    samples_ms: tuple[Samples, ...]
    device: str = "cpu"
    cpu_ms: tuple[Annotated[tuple[Amount, ...], NotEmpty()], ...] | None = None
    sittings: tuple[Size, ...] = ()
    overload: Amount | None = None

    def __post_init__(self) -> None:
        rows = (*self.samples_ms, *(self.cpu_ms or ()))
        check_contenders(self.names, self.samples_ms, *(() if self.cpu_ms is None else (self.cpu_ms,)))
        if len(set(map(len, rows))) > 1:
            raise UsageError("one contender has more rounds than another")
        if self.sittings and sum(self.sittings) != len(self.samples_ms[0]):
            raise UsageError("the sittings have more or fewer rounds than there are samples")

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

    def median_cpu_ms(self, contender: int) -> float | None:
        """The median CPU time of one forward of the whole batch, in milliseconds; None if it was not measured."""
        return None if self.cpu_ms is None else float(np.median(self.cpu_ms[contender]))

    def speedup(self, contender: int = -1, reference: int = 0) -> Interval:
        """The speed-up of a contender over the reference: the ratio of the two medians."""
        found = ratio_interval(self.samples_ms[reference], self.samples_ms[contender], self.sittings)
        return replace(found, doubt=self.load or _too_wide(found))

    def cpu_speedup(self, contender: int = -1, reference: int = 0) -> Interval | None:
        """The same ratio of the CPU times; None if these were not measured."""
        if self.cpu_ms is None or not min(map(min, self.cpu_ms)):
            return None
        found = ratio_interval(self.cpu_ms[reference], self.cpu_ms[contender], self.sittings)
        return replace(found, doubt=_too_wide(found))

    def reliable_speedup(self, contender: int = -1, reference: int = 0) -> Interval:
        """The speed-up, by CPU time if that was measured and other programs make the clock's unreliable."""
        by_clock = self.speedup(contender, reference)
        return (self.cpu_speedup(contender, reference) if by_clock.doubt else None) or by_clock

    def sitting_medians_ms(self, contender: int) -> tuple[float, ...]:
        """The median time in each sitting, in milliseconds; empty if there was no pause."""
        ends = np.cumsum(self.sittings).tolist()
        row = self.samples_ms[contender]
        return tuple(float(np.median(row[begin:end])) for begin, end in zip([0, *ends], ends, strict=False))

    def sitting_speedups(self, contender: int = -1, reference: int = 0) -> tuple[float, ...]:
        """The ratio of the two medians in each sitting; empty if there was no pause."""
        pairs = zip(self.sitting_medians_ms(reference), self.sitting_medians_ms(contender), strict=True)
        return tuple(before / after for before, after in pairs)

    @property
    def load(self) -> str:
        """Why other programs make this unreliable; empty if they do not."""
        if self.cpu_ms is not None:
            share = sum(map(sum, self.cpu_ms)) / sum(map(sum, self.samples_ms))
            return f"other programs took {100 * (1 - share):.0f} % of the time" if share < LEAST_CPU_SHARE else ""
        if self.overload is not None and self.overload > BUSY_CORES:
            return f"other programs took {self.overload:.1f} of the cores"
        return ""


def _too_wide(interval: Interval) -> str:
    return "the times vary too much" if interval.high > TOO_WIDE * interval.low else ""


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
