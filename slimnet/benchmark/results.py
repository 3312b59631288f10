"""The results of a benchmark, as plain values that can be written to JSON and read back."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, TypeVar

from slimnet.benchmark.counts import Counts
from slimnet.benchmark.environment import Environment
from slimnet.benchmark.intervals import BUSY, Interval
from slimnet.benchmark.latency import Latency, check_contenders, labels
from slimnet.benchmark.profile import LayerTimes, Profile, efficiency
from slimnet.errors import UsageError
from slimnet.printable import Summarised
from slimnet.storage.field_types import Count, NotEmpty, Size
from slimnet.storage.records import build, parse_json
from slimnet.training.analysis.metrics import Accuracy

Row = TypeVar("Row", Latency, "Memory", "Accuracies", Profile)


@dataclass(frozen=True)
class Memory:
    """Peak memory of the activations in one forward at one batch size, in bytes, for every contender.

    On the CPU it is the largest total size of the tensors that are alive at once: the inputs, and the tensors that the
    forward creates in evaluation mode in torch, from the operation that creates them until their storage is freed.
    Views and in-place results cost nothing; weights, buffers and workspaces of kernels are not counted. On a GPU it is
    the peak of the memory allocated by torch, minus that before the forward (the weights), plus the inputs: there the
    workspaces of kernels are included.
    """

    device: str
    batch: Size
    names: tuple[str, ...]
    peak_bytes: tuple[Count, ...]

    def __post_init__(self) -> None:
        check_contenders(self.names, self.peak_bytes)


@dataclass(frozen=True)
class Accuracies:
    """The accuracy of every contender on the same test images, by one runtime."""

    runtime: str
    data: str
    names: tuple[str, ...]
    values: tuple[Accuracy, ...]

    def __post_init__(self) -> None:
        check_contenders(self.names, self.values)

    @property
    def label(self) -> str:
        """The measurement in words."""
        return f"accuracy, {self.runtime}"


@dataclass(frozen=True, repr=False)
class Comparison(Summarised):
    """The measurements and their environment; the first contender is the reference.

    Rows with one value for each contender have them in the order of `counts`.
    """

    counts: Annotated[tuple[Counts, ...], NotEmpty()]
    latencies: tuple[Latency, ...]
    environment: Environment
    memories: tuple[Memory, ...] = ()
    accuracies: tuple[Accuracies, ...] = ()
    profiles: tuple[Profile, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the contenders."""
        return tuple(each.name for each in self.counts)

    @property
    def counted_by(self) -> str:
        """Who counted the MACs; "" if that is not known."""
        return "; ".join(dict.fromkeys(each.counted_by for each in self.counts if each.counted_by))

    @property
    def summary(self) -> str:
        """The names, and how much faster the last contender is on each runtime."""
        return f"{', '.join(self.names)}; {'; '.join(self._speedups(-1)) or 'nothing was timed'}"

    def __str__(self) -> str:
        lines = [f"compared with {self.names[0]}:"]
        for contender, name in enumerate(self.names[1:], 1):
            reduction = self.macs_reduction(contender)
            macs = [] if reduction is None else [f"{reduction:.2f} × fewer MACs"]
            lines.append(f"  {name}: {', '.join([*macs, *self._speedups(contender)])}")
        return "\n".join(lines)

    def _speedups(self, contender: int) -> list[str]:
        pairs = zip(labels(self.latencies), self.latencies, strict=True)
        return [f"{label}: {latency.speedup(contender)}" for label, latency in pairs]

    def macs_reduction(self, contender: int = -1, reference: int = 0) -> float | None:
        """The MACs of the reference ÷ those of a contender; None if not known."""
        before, after = self.counts[reference].macs, self.counts[contender].macs
        return before / after if before and after else None

    def efficiency(self, latency: Latency, contender: int = -1, reference: int = 0) -> Interval | None:
        """Speed-up ÷ MACs reduction; None if one is not known, or the networks have the same MACs."""
        return efficiency(latency.speedup(contender, reference), self.macs_reduction(contender, reference))

    @property
    def doubts(self) -> tuple[str, ...]:
        """What other programs made unmeasurable, and why: a line for each setting in which a speed-up is in doubt."""
        found = []
        for label, latency in zip(labels(self.latencies), self.latencies, strict=True):
            reasons = dict.fromkeys(latency.speedup(contender).doubt for contender in range(1, len(latency.names)))
            if words := ", ".join(filter(None, reasons)):
                found.append(f"{label} is {BUSY}: {words}")
        return tuple(found)

    def pair(self, contender: int, reference: int = 0) -> "Comparison":
        """The comparison of two contenders only, the reference first."""
        chosen = (reference, contender)
        return replace(
            self,
            counts=_pick(self.counts, chosen),
            latencies=tuple(_chosen_latency(each, chosen) for each in self.latencies),
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
        """Plain values, including raw samples and the values derived from them."""
        document = asdict(self)
        for row, latency in zip(document["latencies"], self.latencies, strict=True):
            contenders = range(len(latency.names))
            row["median_ms"] = [latency.median_ms(contender) for contender in contenders]
            row["median_cpu_ms"] = [latency.median_cpu_ms(contender) for contender in contenders]
            row["images_per_second"] = [latency.images_per_second(contender) for contender in contenders]
            row["speedup"] = [asdict(latency.speedup(contender)) for contender in contenders]
            row["cpu_speedup"] = [_plain(latency.cpu_speedup(contender)) for contender in contenders]
            row["sitting_speedups"] = [list(latency.sitting_speedups(contender)) for contender in contenders]
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
    def from_dict(cls, document: Mapping[str, Any], where: str = "this") -> "Comparison":
        """Read the output of `to_dict`; values derived from the samples are computed again. `where` is in errors.

        Raises:
            UsageError: it is not a comparison.
        """
        if not isinstance(document, Mapping):
            raise UsageError(
                f"{where} is not a result of slimnet benchmark --json: it is not a JSON object; measure again"
            )
        advice = "pass a result of slimnet benchmark --json, or measure again"
        return build(cls, document, where, UsageError, advice=advice, others_ignored=True)

    @classmethod
    def from_json(cls, text: str) -> "Comparison":
        """Read the output of `to_json`.

        Raises:
            UsageError: it is not a comparison.
        """
        return cls.from_dict(
            parse_json(text, "this is not a result of slimnet benchmark --json: it", UsageError, "measure again")
        )

    def __post_init__(self) -> None:
        rows: list[Any] = [*self.latencies, *self.memories, *self.accuracies, *self.profiles]
        for row in rows:
            if row.names != self.names:
                raise UsageError(f"a row is about {', '.join(row.names)} and not {', '.join(self.names)}")


def _plain(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else asdict(interval)


def _pick(values: tuple[Any, ...], chosen: Iterable[int]) -> tuple[Any, ...]:
    return tuple(values[each] for each in chosen)


def _chosen(row: Row, chosen: tuple[int, int], *names: str) -> Row:
    """A row with the values of the chosen contenders only, in `names` and in the given fields."""
    changes: dict[str, Any] = {name: _pick(getattr(row, name), chosen) for name in ("names", *names)}
    return replace(row, **changes)


def _chosen_latency(latency: Latency, chosen: tuple[int, int]) -> Latency:
    return _chosen(latency, chosen, "samples_ms", *(() if latency.cpu_ms is None else ("cpu_ms",)))


def _chosen_layer(row: LayerTimes, chosen: tuple[int, int]) -> LayerTimes:
    return replace(row, macs=_pick(row.macs, chosen), samples_ms=_pick(row.samples_ms, chosen))
