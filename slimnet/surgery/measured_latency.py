"""MeasuredLatency: the time that a slim network takes, measured after it was made to a budget of latency."""

from dataclasses import dataclass

from slimnet.storage.field_types import Amount, Count


@dataclass(frozen=True)
class MeasuredLatency:
    """The latency of a slim network as a fraction of the dense one's, measured in turns on one machine.

    Attributes:
        asked: the fraction that the budget allowed.
        left: the fraction measured, the ratio of the two medians, with its 95 % interval from `low` to `high`.
        dense_ms: the median time of one forward, in milliseconds; `slim_ms` likewise.
        runtime: where both ran, on `threads` threads of the CPU, at batch size `batch`.
        processor: the name of the CPU.
        doubt: why other programs make this unreliable; empty if they do not.
        cpu_left: the fraction of the CPU time; None if more than one thread ran, or it was not measured.
    """

    asked: Amount
    left: Amount
    low: Amount
    high: Amount
    dense_ms: Amount
    slim_ms: Amount
    runtime: str
    threads: Count
    batch: Count
    processor: str
    doubt: str = ""
    cpu_left: Amount | None = None

    @property
    def missed(self) -> bool:
        """Whether the network takes longer than the budget allowed, beyond what noise can explain."""
        return not self.doubt and self.low > self.asked

    @property
    def verdict(self) -> str:
        """Whether the budget was met, in words."""
        if self.doubt:
            by_cpu = "" if self.cpu_left is None else f"; by CPU time it is {self.cpu_left:.2f}"
            return f"whether that is met is not measurable on this busy machine ({self.doubt}){by_cpu}"
        if self.missed:
            return "the budget is missed"
        return "the budget is met" if self.high <= self.asked else "whether that is met is within the noise"

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return (
            f"latency under {self.runtime}, batch {self.batch}, {threads}: "
            f"{self.dense_ms:.3g} → {self.slim_ms:.3g} ms, "
            f"{self.left:.2f} of the dense network's ({self.low:.2f} to {self.high:.2f}); "
            f"{self.asked:g} was asked: {self.verdict}"
        )
