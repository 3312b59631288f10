"""A profile: the time of every convolution and linear layer of every contender, and of other ops by kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from slimnet.benchmark.intervals import Interval, ratio_interval
from slimnet.benchmark.latency import check_contenders, place
from slimnet.errors import UsageError
from slimnet.storage.field_types import Amount, Count, NotEmpty, Size

LAYER_KINDS = ("conv", "linear")
OTHER = "other"
SUMS = {"conv": "all convolutions", "linear": "all linear layers", OTHER: "everything else"}
"""The name of the sum of all rows of a kind."""

Samples = Annotated[tuple[Amount, ...], NotEmpty()]


@dataclass(frozen=True)
class LayerTimes:
    """The time of one layer in every contender, or of all other ops of one kind.

    `kind` is "conv", "linear" or "other"; `macs` are for one example; `samples_ms` has the milliseconds of each
    round, for the whole batch. Both have one entry for each contender, None if it has no such layer.
    """

    name: str
    kind: str
    macs: tuple[Count | None, ...]
    samples_ms: tuple[Samples | None, ...]

    def median_ms(self, contender: int) -> float | None:
        """The median time in a contender, None if it has no such layer."""
        samples = self.samples_ms[contender]
        return None if samples is None else float(np.median(samples))

    def speedup(self, contender: int = -1, reference: int = 0) -> Interval | None:
        """The speed-up of the layer over the reference; None if one of them has no such layer."""
        before, after = self.samples_ms[reference], self.samples_ms[contender]
        return None if before is None or after is None else ratio_interval(before, after)

    def macs_reduction(self, contender: int = -1, reference: int = 0) -> float | None:
        """The MACs of the layer in the reference ÷ those in the contender; None without MACs."""
        before, after = self.macs[reference], self.macs[contender]
        return before / after if before and after else None

    def efficiency(self, contender: int = -1, reference: int = 0) -> Interval | None:
        """Speed-up ÷ MACs reduction: 1 if the time is proportional to the MACs."""
        return efficiency(self.speedup(contender, reference), self.macs_reduction(contender, reference))


@dataclass(frozen=True)
class Profile:
    """The time of every layer on one runtime at one batch size.

    `rows` are the convolutions and linear layers in the order of the first contender, then all other ops by kind, the
    longest first.
    """

    runtime: str
    batch: Size
    threads: Size
    names: Annotated[tuple[str, ...], NotEmpty()]
    rows: tuple[LayerTimes, ...]
    device: str = "cpu"

    def __post_init__(self) -> None:
        for row in self.rows:
            check_contenders(self.names, row.macs, row.samples_ms)
            if len({len(samples) for samples in row.samples_ms if samples is not None}) > 1:
                raise UsageError("a layer has more rounds in one contender than in another")

    @property
    def label(self) -> str:
        """The runtime, the device and the batch size, in words."""
        return f"{place(self.runtime, self.device)}, batch {self.batch}"

    @property
    def layers(self) -> tuple[LayerTimes, ...]:
        """The convolutions and linear layers."""
        return tuple(row for row in self.rows if row.kind in LAYER_KINDS)

    @property
    def others(self) -> tuple[LayerTimes, ...]:
        """The other rows: normalisation, activations, pooling, changes of layout, and time between operators."""
        return tuple(row for row in self.rows if row.kind == OTHER)

    @property
    def sums(self) -> tuple[LayerTimes, ...]:
        """The sum of all rows of each kind."""
        kinds = ((kind, [row for row in self.rows if row.kind == kind]) for kind in SUMS)
        return tuple(added(kind, rows) for kind, rows in kinds if rows)

    def total_ms(self, contender: int, rows: Sequence[LayerTimes] | None = None) -> float:
        """The sum of the medians of these rows, or of all."""
        return sum(row.median_ms(contender) or 0.0 for row in (self.rows if rows is None else rows))


def added(kind: str, rows: Sequence[LayerTimes]) -> LayerTimes:
    """The sum of the rows of one kind: a missing layer counts as 0, an unknown value makes the sum unknown."""
    macs: list[int | None] = []
    samples: list[Samples | None] = []
    for contender in range(len(rows[0].macs)):
        present = [row for row in rows if row.samples_ms[contender] is not None]
        known = [row.macs[contender] for row in present]
        macs.append(None if None in known or not known else sum(each or 0 for each in known))
        columns = zip(*(row.samples_ms[contender] or () for row in present), strict=True)
        samples.append(tuple(map(sum, columns)) or None)
    return LayerTimes(SUMS[kind], kind, tuple(macs), tuple(samples))


def efficiency(speedup: Interval | None, reduction: float | None) -> Interval | None:
    """Speed-up ÷ MACs reduction, with the interval of the speed-up; None if one is not known, or the MACs are equal."""
    return None if speedup is None or reduction in (None, 1) else speedup.over(reduction)
