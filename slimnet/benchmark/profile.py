"""A profile: the time of every convolution and linear layer of every contender, and of other ops by kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from slimnet.benchmark.latency import Interval, check_contenders, place, ratio_interval
from slimnet.errors import UsageError
from slimnet.storage.field_types import Amount, Count, NotEmpty, Size

LAYER_KINDS = ("conv", "linear")
OTHER = "other"
SUMS = {"conv": "all convolutions", "linear": "all linear layers", OTHER: "everything else"}
"""The name of the sum of all rows of a kind."""

Samples = Annotated[tuple[Amount, ...], NotEmpty()]


@dataclass(frozen=True)
class LayerTimes:
    """The time of one layer in every contender, or of all work of one other kind.

    `kind` is "conv", "linear" or "other"; `macs` are for one example; `samples_ms` has the milliseconds of each
    round, for the whole batch. Both have one entry per contender, None where it has no such layer.
    """

    name: str
    kind: str
    macs: tuple[Count | None, ...]
    samples_ms: tuple[Samples | None, ...]

    def median_ms(self, contender: int) -> float | None:
        """The median time in a contender, None where it has no such layer."""
        samples = self.samples_ms[contender]
        return None if samples is None else float(np.median(samples))

    def speedup(self, contender: int = -1, reference: int = 0) -> Interval | None:
        """How many times faster the layer is than in the reference; None where one of them lacks it."""
        before, after = self.samples_ms[reference], self.samples_ms[contender]
        return None if before is None or after is None else ratio_interval(before, after)

    def macs_reduction(self, contender: int = -1, reference: int = 0) -> float | None:
        """How many times fewer multiply-accumulates the layer does; None where it does none."""
        before, after = self.macs[reference], self.macs[contender]
        return before / after if before and after else None

    def efficiency(self, contender: int = -1, reference: int = 0) -> Interval | None:
        """Speed-up ÷ MACs reduction: 1 where time fell in proportion to the MACs."""
        return efficiency(self.speedup(contender, reference), self.macs_reduction(contender, reference))


@dataclass(frozen=True)
class Profile:
    """The time of every layer on one runtime at one batch size.

    `rows` are the convolutions and linear layers in the order of the first contender, then all other work by kind,
    the longest first.
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
        """Where it was measured, in words."""
        return f"{place(self.runtime, self.device)}, batch {self.batch}"

    @property
    def layers(self) -> tuple[LayerTimes, ...]:
        """The convolutions and linear layers."""
        return tuple(row for row in self.rows if row.kind in LAYER_KINDS)

    @property
    def others(self) -> tuple[LayerTimes, ...]:
        """Everything else: normalisation, activations, pooling, changes of layout, and time between operators."""
        return tuple(row for row in self.rows if row.kind == OTHER)

    @property
    def sums(self) -> tuple[LayerTimes, ...]:
        """All rows of a kind as one, for every kind that there is."""
        kinds = ((kind, [row for row in self.rows if row.kind == kind]) for kind in SUMS)
        return tuple(added(kind, rows) for kind, rows in kinds if rows)

    def total_ms(self, contender: int, rows: Sequence[LayerTimes] | None = None) -> float:
        """The sum of the medians of these rows, or of all."""
        return sum(row.median_ms(contender) or 0.0 for row in (self.rows if rows is None else rows))


def added(kind: str, rows: Sequence[LayerTimes]) -> LayerTimes:
    """The rows of one kind as one: what a contender lacks counts for nothing, what is not known makes a sum unknown."""
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
    """Speed-up ÷ MACs reduction, with the interval of the speed-up; None where one is not known."""
    return None if speedup is None or reduction is None else speedup.over(reduction)
