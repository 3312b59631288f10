"""A comparison of networks as text, rows and marks."""

from dataclasses import dataclass

from slimnet.benchmark import Comparison, Interval, Latency
from slimnet.benchmark.intervals import BUSY, gain
from slimnet.benchmark.latency import labels, place
from slimnet.report import formatting
from slimnet.report.drawing.mark import Mark

FILE_ORDER = ("onnx", "weights")
NOTHING = "–"


@dataclass(frozen=True)
class ContenderRow:
    """One network and its costs; a dash if not measured."""

    name: str
    params: str
    macs: str
    file: str
    memory: str
    accuracy: str


@dataclass(frozen=True)
class SpeedRow:
    """One network in one setting: its time, its speed-up against the first network, and its efficiency.

    `cpu` is the CPU time and its ratio, `sittings` the ratio in each; both are empty if not measured.
    """

    label: str
    name: str
    median: str
    throughput: str
    interval: Interval | None
    efficiency: Interval | None
    cpu: str
    sittings: str


def headline(comparison: Comparison) -> str:
    """The verdict of a comparison in a few words: the fastest network against the first, on the last runtime."""
    if not comparison.latencies:
        return f"{len(comparison.counts)} networks, side by side"
    latency = comparison.latencies[-1]
    best = fastest(latency)
    interval = latency.speedup(best)
    if interval.doubt:
        return f"{BUSY[0].upper()}{BUSY[1:]}"
    if not interval.is_faster:
        return f"Nothing is measurably faster than {formatting.printable(latency.names[0], 40)}"
    return f"{formatting.printable(latency.names[best], 40)} is {interval.verdict}"


def sentences(comparison: Comparison) -> list[str]:
    """The speed of each network against the first on the last runtime, with its accuracy if measured."""
    first = f"{comparison.names[0]}{_at(comparison, 0)}"
    found = [f"{len(comparison.counts)} networks were measured side by side, against {first}."]
    if comparison.latencies:
        latency = comparison.latencies[-1]
        words = [
            f"{_speed(name, latency.speedup(number))}{_at(comparison, number)}"
            for number, name in enumerate(latency.names)
            if number
        ]
        found.append(f"On {place(latency.runtime, latency.device)} at batch {latency.batch}, {_listed(words)}.")
    return found


def _speed(name: str, interval: Interval) -> str:
    return f"{'the speed of ' if interval.doubt else ''}{name} is {interval}"


def _at(comparison: Comparison, number: int) -> str:
    if not comparison.accuracies:
        return ""
    return f" at {formatting.percent(comparison.accuracies[0].values[number].top1, 2)} accuracy"


def fastest(latency: Latency) -> int:
    """The contender with the lowest median, except the first."""
    return min(range(1, len(latency.names)), key=latency.median_ms)


def contender_rows(comparison: Comparison) -> list[ContenderRow]:
    """A row for each network."""
    return [_contender_row(comparison, number) for number in range(len(comparison.counts))]


def _contender_row(comparison: Comparison, number: int) -> ContenderRow:
    counts, first = comparison.counts[number], comparison.counts[0]
    kind = next((kind for kind in FILE_ORDER if kind in first.file_bytes), "")
    memory = comparison.memories[0].peak_bytes[number] if comparison.memories else None
    accuracy = comparison.accuracies[0].values[number] if comparison.accuracies else None
    return ContenderRow(
        counts.name,
        formatting.amount(counts.params),
        NOTHING if counts.macs is None else formatting.amount(counts.macs),
        formatting.size(counts.file_bytes[kind]) if kind in counts.file_bytes else NOTHING,
        NOTHING if memory is None else formatting.size(memory),
        NOTHING if accuracy is None else formatting.percent(accuracy.top1, 2),
    )


def speed_rows(comparison: Comparison) -> list[SpeedRow]:
    """A row for each network in each setting; those of the first network have no ratio."""
    found = []
    for latency, label in zip(comparison.latencies, labels(comparison.latencies), strict=True):
        for number, name in enumerate(latency.names):
            found.append(
                SpeedRow(
                    label,
                    name,
                    formatting.duration(latency.median_ms(number)),
                    f"{formatting.amount(latency.images_per_second(number))}/s",
                    latency.speedup(number) if number else None,
                    comparison.efficiency(latency, number) if number else None,
                    _cpu(latency, number),
                    in_sittings(latency, number) if number else "",
                )
            )
    return found


def _cpu(latency: Latency, number: int) -> str:
    median, ratio = latency.median_cpu_ms(number), latency.cpu_speedup(number)
    if median is None or ratio is None:
        return ""
    return f"{formatting.duration(median)}, {ratio}" if number else formatting.duration(median)


def in_sittings(latency: Latency, number: int) -> str:
    """The speed-up in each sitting: "1.07 × slower, 1.81 × faster"; empty if there was no pause."""
    return ", ".join(gain(ratio) for ratio in latency.sitting_speedups(number))


def macs_marks(comparison: Comparison) -> list[Mark]:
    """Error against MACs as a fraction of the first network's, which is the first mark; empty if one is not known."""
    first = comparison.counts[0].macs
    if not comparison.accuracies or not first or any(each.macs is None for each in comparison.counts):
        return []
    values = comparison.accuracies[0].values
    return [
        Mark(counts.name, (counts.macs or 0) / first, 1 - accuracy.top1)
        for counts, accuracy in zip(comparison.counts, values, strict=True)
    ]


def latency_marks(comparison: Comparison) -> list[Mark]:
    """Error against the latency on the last runtime, in ms; the interval is that of the ratio to the first network."""
    if not comparison.accuracies or not comparison.latencies:
        return []
    latency, values = comparison.latencies[-1], comparison.accuracies[0].values
    reference = latency.median_ms(0)
    marks = []
    for number, (name, accuracy) in enumerate(zip(latency.names, values, strict=True)):
        interval = latency.speedup(number)
        bounds = (reference / interval.high, reference / interval.low) if number else None
        marks.append(Mark(name, latency.median_ms(number), 1 - accuracy.top1, bounds))
    return marks


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])}, and {words[-1]}"
