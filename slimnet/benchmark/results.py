"""The results of a benchmark, as plain values that are written to JSON and read back."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, TypeVar

from slimnet.benchmark.counts import Counts
from slimnet.benchmark.environment import Environment
from slimnet.benchmark.latency import Interval, Latency, check_contenders
from slimnet.benchmark.profile import LayerTimes, Profile, efficiency
from slimnet.errors import UsageError
from slimnet.storage.field_types import Count, NotEmpty, Size
from slimnet.storage.records import build, parse_json
from slimnet.training.analysis.metrics import Accuracy

Row = TypeVar("Row", Latency, "Memory", "Accuracies", Profile)


@dataclass(frozen=True)
class Memory:
    """Peak memory of the activations in one forward at one batch size, in bytes, for every contender.

    On the CPU it is the largest sum of the bytes of all tensors that are alive at once: the inputs, and what the
    forward makes in evaluation mode in torch, each tensor from the operation that makes it until the last reference
    to its storage is gone. Views and in-place results cost nothing; weights, buffers and what a kernel needs inside
    an operation are not counted. On a GPU it is what torch's allocator had handed out at the peak, less what it had
    before (the weights), plus the inputs: there the kernels' workspaces are counted.
    """

    device: str
    batch: Size
    names: tuple[str, ...]
    peak_bytes: tuple[Count, ...]

    def __post_init__(self) -> None:
        check_contenders(self.names, self.peak_bytes)


@dataclass(frozen=True)
class Accuracies:
    """The accuracy of every contender on the same test images, through one runtime."""

    runtime: str
    data: str
    names: tuple[str, ...]
    values: tuple[Accuracy, ...]

    def __post_init__(self) -> None:
        check_contenders(self.names, self.values)

    @property
    def label(self) -> str:
        """What was measured, in words."""
        return f"accuracy, {self.runtime}"


@dataclass(frozen=True)
class Comparison:
    """The measurements and their environment; the others are compared with the first contender.

    Rows that have one value for each contender have them in the order of `counts`.
    """

    counts: Annotated[tuple[Counts, ...], NotEmpty()]
    latencies: tuple[Latency, ...]
    environment: Environment
    memories: tuple[Memory, ...] = ()
    accuracies: tuple[Accuracies, ...] = ()
    profiles: tuple[Profile, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The contenders."""
        return tuple(each.name for each in self.counts)

    def macs_reduction(self, contender: int = -1, reference: int = 0) -> float | None:
        """How many times fewer MACs a contender does than the reference; None where that is not known."""
        before, after = self.counts[reference].macs, self.counts[contender].macs
        return before / after if before and after else None

    def efficiency(self, latency: Latency, contender: int = -1, reference: int = 0) -> Interval | None:
        """Speed-up ÷ MACs reduction: 1 where time fell in proportion to the MACs."""
        return efficiency(latency.speedup(contender, reference), self.macs_reduction(contender, reference))

    def pair(self, contender: int, reference: int = 0) -> "Comparison":
        """Two of the contenders alone, the reference first."""
        chosen = (reference, contender)
        return replace(
            self,
            counts=_pick(self.counts, chosen),
            latencies=tuple(_chosen(each, chosen, "samples_ms") for each in self.latencies),
            memories=tuple(_chosen(each, chosen, "peak_bytes") for each in self.memories),
            accuracies=tuple(_chosen(each, chosen, "values") for each in self.accuracies),
            profiles=tuple(
                replace(
                    each,
                    names=_pick(each.names, chosen),
                    rows=tuple(_chosen_layer(row, chosen) for row in each.rows),
                )
                for each in self.profiles
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, with raw samples and the values derived from them."""
        document = asdict(self)
        for row, latency in zip(document["latencies"], self.latencies, strict=True):
            contenders = range(len(latency.names))
            row["median_ms"] = [latency.median_ms(contender) for contender in contenders]
            row["images_per_second"] = [latency.images_per_second(contender) for contender in contenders]
            row["speedup"] = [asdict(latency.speedup(contender)) for contender in contenders]
            row["efficiency"] = [_plain(self.efficiency(latency, contender)) for contender in contenders]
        for document_rows, profile in zip(document["profiles"], self.profiles, strict=True):
            for row, layer in zip(document_rows["rows"], profile.rows, strict=True):
                contenders = range(len(profile.names))
                row["median_ms"] = [layer.median_ms(contender) for contender in contenders]
                row["speedup"] = [_plain(layer.speedup(contender)) for contender in contenders]
                row["efficiency"] = [_plain(layer.efficiency(contender)) for contender in contenders]
        document["macs_reduction"] = [self.macs_reduction(contender) for contender in range(len(self.counts))]
        return document

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Comparison":
        """Read the output of `to_dict`; values derived from the samples are computed again.

        Raises:
            UsageError: it is something else.
        """
        wrong = "this is no comparison that slimnet wrote"
        return build(cls, document, wrong, UsageError, advice="measure it again", others_ignored=True)

    @classmethod
    def from_json(cls, text: str) -> "Comparison":
        """Read back what `to_json` wrote.

        Raises:
            UsageError: it is something else.
        """
        return cls.from_dict(
            parse_json(text, "this is no comparison that slimnet wrote: it", UsageError, "measure again")
        )

    def __post_init__(self) -> None:
        rows: list[Any] = [*self.latencies, *self.memories, *self.accuracies, *self.profiles]
        for row in rows:
            if row.names != self.names:
                raise UsageError(f"a row is about {', '.join(row.names)} and not {', '.join(self.names)}")


def _plain(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else asdict(interval)


def _pick(values: tuple[Any, ...], chosen: Iterable[int]) -> tuple[Any, ...]:
    return tuple(values[each] for each in chosen)


def _chosen(row: Row, chosen: tuple[int, int], *names: str) -> Row:
    """A row with the values of the chosen contenders alone, in `names` and in those fields."""
    changes: dict[str, Any] = {name: _pick(getattr(row, name), chosen) for name in ("names", *names)}
    return replace(row, **changes)


def _chosen_layer(row: LayerTimes, chosen: tuple[int, int]) -> LayerTimes:
    return replace(row, macs=_pick(row.macs, chosen), samples_ms=_pick(row.samples_ms, chosen))
