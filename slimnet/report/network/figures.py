"""The figures of a network report as SVG; colours have the same meaning in all of them.

Grey is the dense network, green the slim one, orange are dead channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from slimnet.benchmark import Interval, Latency
from slimnet.benchmark.latency import labels
from slimnet.benchmark.profile import LayerTimes, Profile
from slimnet.report.drawing.axes import floor, iterations_axis, loss_axis, powers, threshold_line
from slimnet.report.drawing.numbers import (
    NOTHING,
    Numbers,
    TableOnPage,
    distributions,
    left_out,
    share,
    short,
    spaced,
)
from slimnet.report.drawing.svg import DEAD, DENSE, INK, MUTED, SLIM, Canvas, Drawing, drawing
from slimnet.report.formatting import amount, duration, printable, times, tiny
from slimnet.report.network.content import Training
from slimnet.surgery.plan_data import LayerPlan

MOST_BARS = 40
MOST_TRACES = 240
SMALLEST_THRESHOLD = 1e-9
WIDE_BINS = 56
"""The bars of a histogram of γ in the wide drawing."""


def silhouette(layers: Sequence[tuple[int, int]], numbers: Numbers | TableOnPage) -> Drawing:
    """The silhouette of the network: for each layer a bar with its channels before, and in front of it after."""
    tallest = max(before for before, _ in layers)

    def draw(figure: Figure, canvas: Canvas) -> None:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(-0.6, len(layers) - 0.4), ylim=(-0.51, 0.51))
        for colour, heights in (
            (DENSE, [before / tallest for before, _ in layers]),
            (SLIM, [after / tallest for _, after in layers]),
        ):
            _pillars(axes, heights, colour, canvas.width / len(layers))

    return drawing("silhouette", "Width of every layer before and after", lambda _: 150, draw, numbers)


def _pillars(axes: Axes, heights: Sequence[float], colour: str, pixels: float) -> None:
    width = 0.72 if pixels > 6 else 1.0
    axes.bar(range(len(heights)), heights, width, bottom=[-height / 2 for height in heights], color=colour)


def widths(layers: Sequence[LayerPlan]) -> Drawing:
    """Channels of every layer before and after: a bar for each layer, or an outline if there are too many."""
    rows = [Bar(each.name, each.channels_before, each.channels_after, _change(each)) for each in layers]
    cells = [(each.name, f"{each.channels_before:,}", f"{each.channels_after:,}") for each in layers]
    numbers = Numbers.of(("Layer", "Channels before", "after"), cells)
    return bars("widths", f"Channels of {len(layers)} layers before and after the surgery", rows, "channels", numbers)


def _change(layer: LayerPlan) -> str:
    before, after = layer.channels_before, layer.channels_after
    return f"{before} → {after}" if after < before else f"{before}"


@dataclass(frozen=True)
class Bar:
    """A layer before and after, in channels or milliseconds, and the text at the end of its bar."""

    name: str
    before: float
    after: float
    words: str


def bars(name: str, description: str, rows: Sequence[Bar], unit: str, numbers: Numbers) -> Drawing:
    """A bar for each layer, grey before and in front of it green after, or an outline if there are too many."""
    if len(rows) > MOST_BARS:
        return drawing(name, description, lambda _: 260, lambda figure, _: _outline(figure, rows, unit), numbers)
    return drawing(
        name,
        description,
        lambda canvas: 24 + len(rows) * (22 if not canvas.narrow else 24),
        lambda figure, canvas: _bars(figure, canvas, rows),
        numbers,
    )


def _bars(figure: Figure, canvas: Canvas, rows: Sequence[Bar]) -> None:
    axes = figure.add_subplot()
    positions = np.arange(len(rows))
    axes.barh(positions, [row.before for row in rows], 0.62, color=DENSE)
    axes.barh(positions, [row.after for row in rows], 0.62, color=SLIM)
    for place, row in enumerate(rows):
        if row.after > row.before:
            axes.barh([place], [row.after - row.before], 0.62, left=row.before, color=DEAD)
    axes.set_yticks(positions, [printable(row.name, 17 if canvas.narrow else 34) for row in rows], color=INK)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xticks=[])
    axes.margins(x=0)
    axes.spines["bottom"].set_visible(False)
    for place, row in enumerate(rows):
        end = max(row.before, row.after)
        axes.annotate(row.words, (end, place), (6, 0), textcoords="offset points", va="center", color=MUTED)


def _outline(figure: Figure, rows: Sequence[Bar], unit: str) -> None:
    axes = figure.add_subplot()
    edges = np.arange(len(rows) + 1) + 0.5
    axes.stairs([row.before for row in rows], edges, fill=True, color=DENSE)
    axes.stairs([row.after for row in rows], edges, fill=True, color=SLIM)
    axes.set(xlabel="layer, in the order of the network", ylabel=unit, xlim=(0.5, len(rows) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, prune="lower"))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=unit == "channels"))
    axes.grid(axis="y")


def layer_times(profile: Profile) -> Drawing:
    """The time of every layer in the first contender and in the last, and of all other ops by kind."""
    rows = [
        Bar(row.name, row.median_ms(0) or 0.0, row.median_ms(-1) or 0.0, _gain(row.speedup(), row.efficiency()))
        for row in (*profile.layers, *profile.others)
    ]
    numbers = Numbers.of(("Layer", "MACs", "Before", "After", "Speed-up", "Efficiency"), map(_layer_row, profile.rows))
    return bars("layertimes", f"Time of {len(rows)} layers before and after the surgery", rows, "ms", numbers)


def _layer_row(row: LayerTimes) -> tuple[str, ...]:
    macs = f"{amount(row.macs[0])} → {amount(row.macs[-1] or 0)}" if row.macs[0] else ""
    times_ms = [row.median_ms(number) for number in (0, -1)]
    ratios = [row.speedup(), row.efficiency()]
    return (
        row.name,
        macs,
        *(NOTHING if each is None else duration(each) for each in times_ms),
        *(NOTHING if each is None else f"{each.value:.2f}" for each in ratios),
    )


def _gain(speedup: Interval | None, efficiency: Interval | None) -> str:
    """The speed-up of a layer and its efficiency, such as 2.1 × (0.80)."""
    if speedup is None:
        return ""
    return times(speedup.value) if efficiency is None else f"{times(speedup.value)} ({efficiency.value:.2f})"


def speedups(latencies: Sequence[Latency]) -> Drawing:
    """The speed-up of each network over the first in every setting, with the 95 % interval."""
    several = len(latencies[0].names) > 2
    rows = [
        (label, name if several else "", latency.speedup(number))
        for latency, label in zip(latencies, labels(latencies), strict=True)
        for number, name in enumerate(latency.names)
        if number
    ]
    draw = partial(_draw_speedups, rows=rows)
    return drawing(
        "speedups",
        "Speed-up of the slim network with its interval",
        lambda _: 56 + (28 if several else 36) * len(rows),
        draw,
        TableOnPage("speeds"),
    )


def _draw_speedups(figure: Figure, canvas: Canvas, rows: Sequence[tuple[str, str, Interval]]) -> None:
    axes = figure.add_subplot()
    # The axis does not include all intervals: on a busy machine some are so wide that nothing else would be visible.
    limit = 1.5 * max([1.25, *(interval.value for *_, interval in rows)])
    for row, (_, _, interval) in enumerate(rows):
        colour = SLIM if interval.is_faster else DEAD if interval.is_slower else MUTED
        end = min(interval.high, limit)
        axes.plot([interval.low, end], [row, row], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot([interval.value], [row], "o", color=colour, markersize=10)
        if end < interval.high:
            axes.plot([end], [row], ">", color=colour, markersize=8)
        axes.annotate(
            times(interval.value, 2), (end, row), (9, 0), textcoords="offset points",
            va="center", color=INK, weight="bold",
        )  # fmt: skip
    axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(rows)), [_speedup_label(label, name, canvas) for label, name, _ in rows], color=INK)
    lowest = min([0.95, *(interval.low for *_, interval in rows)])
    highest = max([1.25, *(min(interval.high, limit) for *_, interval in rows)])
    axes.set(
        ylim=(len(rows) - 0.5, -0.5),
        xlim=(lowest - 0.05, highest + (highest - lowest) * (0.3 if canvas.narrow else 0.1)),
    )
    axes.set_xlabel("times as fast as the first network" if rows[0][1] else "times as fast as the dense network")
    axes.xaxis.set_major_locator(MaxNLocator(4 if canvas.narrow else 7, steps=[1, 2, 5, 10]))
    axes.grid(axis="x")


def _speedup_label(label: str, name: str, canvas: Canvas) -> str:
    if not name:
        return label.replace(", ", "\n", 1) if canvas.narrow else label
    return f"{printable(name, 16)}\n{label}" if canvas.narrow else f"{printable(name, 28)}, {label}"


def gamma_histogram(gammas: Sequence[float], threshold: float) -> Drawing:
    """A histogram of |γ| on a logarithmic axis, with the threshold between dead and live channels."""
    threshold = max(threshold, SMALLEST_THRESHOLD)
    values = np.maximum(np.abs(np.asarray(gammas, dtype=float)), floor(threshold))

    def draw(figure: Figure, canvas: Canvas) -> None:
        axes = figure.add_subplot()
        edges = _bins(values, threshold, WIDE_BINS // 2 if canvas.narrow else WIDE_BINS)
        for part, colour in ((values < threshold, DEAD), (values >= threshold, SLIM)):
            axes.hist(values[part], edges.tolist(), color=colour, rwidth=0.86)
        axes.set_xscale("log")
        threshold_line(axes, threshold, vertical=True)
        axes.xaxis.set_major_formatter(powers(floor(threshold)))
        axes.xaxis.set_major_locator(LogLocator(numticks=7 if canvas.narrow else 12))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set(xlabel="|γ|", ylabel="channels", xlim=(edges[0] * 0.8, edges[-1] * 1.2))
        axes.margins(y=0.14)
        axes.grid(axis="y")

    dead = int((values < threshold).sum())
    description = f"Histogram of |γ|: {dead} of {values.size} channels below the threshold of {threshold:g}"
    height = lambda canvas: 250 if canvas.narrow else 280  # noqa: E731
    return drawing("gammas", description, height, draw, _bin_counts(values, threshold))


def _bin_counts(values: np.ndarray, threshold: float) -> Numbers:
    """The bars of the wide drawing, those of no channel left out."""
    edges = _bins(values, threshold, WIDE_BINS)
    counts, _ = np.histogram(values, edges)
    rows = [
        (tiny(low), tiny(high), f"{count:,}", "dead" if low < threshold * (1 - 1e-9) else "alive")
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        if count
    ]
    note = f"Channels with |γ| below {tiny(floor(threshold))} are counted at it."
    return Numbers.of(("|γ| from", "to", "Channels", "They are"), rows, note)


def _bins(values: np.ndarray, threshold: float, count: int) -> np.ndarray:
    """Logarithmic bins with an edge at the threshold, so that every bar is either dead or alive."""
    low = np.log10(min(values.min(initial=1.0), threshold / 10))
    high = np.log10(max(values.max(initial=threshold), threshold * 10) * 1.001)
    step = (high - low) / count
    middle = np.log10(threshold)
    below, above = int(np.ceil((middle - low) / step)), int(np.ceil((high - middle) / step))
    return np.asarray(10 ** (middle + step * np.arange(-below, above + 1)))


def progress(training: Training) -> Drawing:
    """The loss, and below it the share of dead channels, over the iterations."""

    def draw(figure: Figure, canvas: Canvas) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.plot(training.iterations, training.losses, color=INK, linewidth=1.5)
        loss_axis(upper, training.losses)
        dead = 100 * np.asarray(training.dead)
        lower.fill_between(training.iterations, dead, color=DEAD, alpha=0.22, linewidth=0)
        lower.plot(training.iterations, dead, color=DEAD)
        lower.set(ylabel="dead, %", xlabel="iteration", ylim=(0, max(10.0, 1.2 * float(dead.max()))))
        lower.annotate(
            f"{dead[-1]:.0f} %", (training.iterations[-1], dead[-1]), (-2, 6), textcoords="offset points",
            ha="right", color=DEAD, weight="bold",
        )  # fmt: skip
        for axes in (upper, lower):
            iterations_axis(axes, training.iterations[-1], canvas)

    points = zip(training.iterations, training.losses, training.dead, strict=True)
    rows = [(f"{iteration:,}", short(loss), share(dead)) for iteration, loss, dead in spaced(list(points))]
    note = left_out(len(training.iterations), "reports")
    numbers = Numbers.of(("Iteration", "Loss", "Dead"), rows, note)
    return drawing("progress", "Loss and dead channels over the training", lambda _: 330, draw, numbers)


def gamma_traces(training: Training, threshold: float) -> Drawing:
    """|γ| of the channels over the iterations, one line each; those that end below the threshold died."""
    threshold = max(threshold, SMALLEST_THRESHOLD)
    rows = np.maximum(training.gammas.astype(float), floor(threshold))
    rows = rows[:, :: -(-rows.shape[1] // MOST_TRACES)]

    def draw(figure: Figure, canvas: Canvas) -> None:
        axes = figure.add_subplot()
        died = rows[-1] < threshold
        for part, colour in ((~died, SLIM), (died, DEAD)):
            axes.plot(training.iterations, rows[:, part], color=colour, alpha=0.35, linewidth=0.9)
        axes.set_yscale("log")
        threshold_line(axes, threshold, vertical=False)
        axes.yaxis.set_major_formatter(powers(floor(threshold)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set(ylabel="|γ|", xlabel="iteration")
        iterations_axis(axes, training.iterations[-1], canvas)

    sizes = {"all": (np.asarray(training.iterations), np.abs(training.gammas.astype(float)))}
    numbers = distributions(sizes, "Channels", "|γ| of all channels.")
    return drawing("traces", "The size of every γ over the training", lambda canvas: 330, draw, numbers)
