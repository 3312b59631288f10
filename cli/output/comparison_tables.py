"""The tables of a comparison: one of all measures, and one of the layers of each profile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text
from slimnet_cli.output import terminal

if TYPE_CHECKING:
    from slimnet.benchmark import Comparison, Interval, Latency, LayerTimes, Profile
    from slimnet.training import Accuracy

Values = list[tuple[str, str]]
"""For every contender its value, and the difference from the first."""
NONE = "–"


def overview(comparison: Comparison) -> Table:
    """Every measure: one column for each contender, and for two of them a column of changes."""
    lines = rows(comparison)
    if len(comparison.names) == 2:
        cells = [
            (name, values[0][0], Text(values[1][0], style="bold"), Text(values[1][1], style="green"))
            for name, values in lines
        ]
        return terminal.table(("", *comparison.names, ""), cells, right=(1, 2))
    broken = [(name, *map(_two_lines, values)) for name, values in lines]
    return terminal.table(("", *comparison.names), broken)


def _two_lines(value: tuple[str, str]) -> Text:
    shown, change = value
    return Text(f"{shown}\n", style="bold") + Text(f"{change}\n", style="not bold green")


def rows(comparison: Comparison) -> list[tuple[str, Values]]:
    """Every measure with its values."""
    from slimnet.benchmark import labels

    found = sizes(comparison)
    for label, latency in zip(labels(comparison.latencies), comparison.latencies, strict=True):
        found.append((label, _latency(comparison, latency)))
        found += _beside(latency)
    for each in comparison.accuracies:
        found.append((f"top-1 accuracy, {each.runtime}", _accuracy(each.values, lambda value: value.top1)))
        found.append((f"top-5 accuracy, {each.runtime}", _accuracy(each.values, lambda value: value.top5)))
    return found


def sizes(comparison: Comparison) -> list[tuple[str, Values]]:
    """Parameters, MACs, files and memory."""
    from slimnet.report.formatting import FILE_KINDS, size

    counts = comparison.counts
    found = [("parameters", _amounts([each.params for each in counts], "{:,}".format))]
    macs = [each.macs for each in counts if each.macs is not None]
    if len(macs) == len(counts):
        found.append(("multiply-accumulates", _amounts(macs, "{:,}".format, fewer=True)))
    activations = [each.activations for each in counts if each.activations is not None]
    if len(activations) == len(counts):
        found.append(("outputs of layers", _amounts(activations, "{:,}".format)))
    for kind, name in FILE_KINDS.items():
        if all(kind in each.file_bytes for each in counts):
            found.append((name, _amounts([each.file_bytes[kind] for each in counts], size)))
    for memory in comparison.memories:
        where = "" if memory.device == "cpu" else f" on {memory.device}"
        found.append((f"peak activations{where}, batch {memory.batch}", _amounts(list(memory.peak_bytes), size)))
    return found


def _amounts(values: list[int], shown: Callable[[int], str], *, fewer: bool = False) -> Values:
    first = values[0]
    return [(shown(value), "" if not index else less(first, value, fewer)) for index, value in enumerate(values)]


def less(before: int, after: int, fewer: bool = False) -> str:
    """How an amount changed: "62 % less", and with `fewer` as a factor too."""
    from slimnet.report.formatting import percent, times

    if before == after or not before:
        return "unchanged"
    change = f"{percent(abs(after - before) / before)} {'less' if after < before else 'more'}"
    return f"{change}, {times(before / after, 2)} fewer" if fewer and 0 < after < before else change


def _latency(comparison: Comparison, latency: Latency) -> Values:
    from slimnet.report.formatting import amount, duration

    found = []
    for index in range(len(latency.names)):
        shown = f"{duration(latency.median_ms(index))}, {amount(latency.images_per_second(index))}/s"
        found.append((shown, gained(comparison, latency, index) if index else ""))
    return found


def _beside(latency: Latency) -> list[tuple[str, Values]]:
    """The CPU time and the ratio in each sitting, where they were measured."""
    from slimnet.report.formatting import duration
    from slimnet.report.network.contenders import in_sittings

    found, contenders = [], range(len(latency.names))
    cpu = [latency.median_cpu_ms(index) for index in contenders]
    if latency.cpu_speedup() is not None:
        ratios = [str(latency.cpu_speedup(index)) if index else "" for index in contenders]
        found.append(("  CPU time", [(duration(time or 0.0), ratio) for time, ratio in zip(cpu, ratios, strict=True)]))
    if latency.sittings:
        medians = [", ".join(map(duration, latency.sitting_medians_ms(index))) for index in contenders]
        ratios = [in_sittings(latency, index) if index else "" for index in contenders]
        found.append(("  in each sitting", list(zip(medians, ratios, strict=True))))
    return found


def gained(comparison: Comparison, latency: Latency, contender: int = -1) -> str:
    """The speed-up with its interval, and the efficiency (speed-up ÷ MACs reduction) if that is measurable."""
    efficiency = comparison.efficiency(latency, contender)
    speedup = str(latency.speedup(contender))
    known = efficiency is not None and not efficiency.doubt
    return f"{speedup}, efficiency {efficiency.value:.2f}" if efficiency and known else speedup


def _accuracy(values: tuple[Accuracy, ...], part: Callable[[Accuracy], float]) -> Values:
    from slimnet.report.formatting import percent

    before = part(values[0])
    found = [(percent(before, 2), "")]
    for value in values[1:]:
        moved = 100 * (part(value) - before)
        change = f"{moved:+.2f} points" if moved else "unchanged"
        found.append((percent(part(value), 2), f"{change}, {value.n} test images"))
    return found


def layers(comparison: Comparison) -> Iterator[tuple[str, Table]]:
    """For every profile and every contender after the first a title and the table of its layers."""
    for profile in comparison.profiles:
        for contender in range(1, len(profile.names)):
            names = f"{profile.names[0]} and {profile.names[contender]}"
            threads = f"{profile.threads} thread{'s' if profile.threads > 1 else ''}"
            yield f"Every layer of {names} on {profile.label}, {threads}", _layer_table(profile, contender)


def _layer_table(profile: Profile, contender: int) -> Table:
    from slimnet.report.formatting import percent

    lines = [_layer_row(row, contender) for row in profile.rows]
    totals = {each: profile.total_ms(each, profile.sums) for each in (0, contender)}
    for row in profile.sums:
        name, *rest = _layer_row(row, contender)
        shares = [percent((row.median_ms(each) or 0.0) / total) for each, total in totals.items()]
        lines.append((f"{name}: {' and '.join(shares)} of the time", *rest))
    headings = ("layer", "MACs", "fewer", *(profile.names[each] for each in (0, contender)), "speed-up", "efficiency")
    return terminal.table(headings, lines, right=(1, 2, 3, 4))


def _layer_row(row: LayerTimes, contender: int) -> tuple[str, ...]:
    from slimnet.report.formatting import amount, duration, printable, times

    macs, fewer = row.macs[0], row.macs_reduction(contender)
    milliseconds = [row.median_ms(each) for each in (0, contender)]
    return (
        printable(row.name),
        amount(macs) if macs else "",
        "" if fewer is None else times(fewer, 2),
        *(NONE if each is None else duration(each) for each in milliseconds),
        ratio(row.speedup(contender)),
        ratio(row.efficiency(contender)),
    )


def note_doubts(comparison: Comparison) -> None:
    """Note on stderr what other programs made unreliable, and the remedy."""
    from slimnet.benchmark.latency import REMEDY

    where = comparison.environment
    for doubt in comparison.doubts:
        terminal.note(f"{doubt}; {REMEDY}")
    loaded = [latency for latency in comparison.latencies if latency.cpu_ms and latency.load]
    if loaded and not any(map(_cpu_is_doubtful, loaded)):
        terminal.note("other programs hardly change the CPU time, which can be compared now")
    elif where.busy:
        terminal.note(f"other programs kept {where.other_work} cores busy at the beginning: the times are too long")


def _cpu_is_doubtful(latency: Latency) -> bool:
    """Whether the CPU time of a contender cannot be compared with the first one's either."""
    found = [latency.cpu_speedup(contender) for contender in range(1, len(latency.names))]
    return any(each is None or each.doubt for each in found)


def ratio(interval: Interval | None) -> str:
    """A ratio with its interval, as numbers."""
    return "" if interval is None else f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"
