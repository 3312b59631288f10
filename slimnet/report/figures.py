"""The figures of a report, each from values to SVG; colours mean the same in all of them.

Grey is the dense network, green the slim one, orange what is dead.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from slimnet.benchmark import Latency
from slimnet.plan import LayerPlan
from slimnet.report.axes import floor, iterations_axis, loss_axis, powers, threshold_line
from slimnet.report.content import Training
from slimnet.report.drawing import DEAD, DENSE, INK, MUTED, SLIM, Canvas, drawing
from slimnet.report.wording import printable, times

MOST_BARS = 40
MOST_TRACES = 240
SMALLEST_THRESHOLD = 1e-9


def silhouette(layers: Sequence[tuple[int, int]]) -> dict[str, str]:
    """The network from the side: a bar per layer, as tall as it has channels before, and after in front of it."""
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

    return drawing("silhouette", "Width of every layer before and after", lambda _: 150, draw)


def _pillars(axes: Axes, heights: Sequence[float], colour: str, pixels: float) -> None:
    width = 0.72 if pixels > 6 else 1.0
    axes.bar(range(len(heights)), heights, width, bottom=[-height / 2 for height in heights], color=colour)


def widths(layers: Sequence[LayerPlan]) -> dict[str, str]:
    """Channels of every layer before and after: a bar per layer, or an outline where there are too many."""
    description = f"Channels of {len(layers)} layers before and after the surgery"
    if len(layers) > MOST_BARS:
        return drawing("widths", description, lambda _: 260, lambda figure, _: _outline(figure, layers))
    return drawing(
        "widths",
        description,
        lambda canvas: 24 + len(layers) * (22 if not canvas.narrow else 24),
        lambda figure, canvas: _bars(figure, canvas, layers),
    )


def _bars(figure: Figure, canvas: Canvas, layers: Sequence[LayerPlan]) -> None:
    axes = figure.add_subplot()
    rows = np.arange(len(layers))
    axes.barh(rows, [layer.channels_before for layer in layers], 0.62, color=DENSE)
    axes.barh(rows, [layer.channels_after for layer in layers], 0.62, color=SLIM)
    names = [printable(layer.name, 17 if canvas.narrow else 34) for layer in layers]
    axes.set_yticks(rows, names, color=INK)
    axes.set(ylim=(len(layers) - 0.4, -0.6), xticks=[])
    axes.margins(x=0)
    axes.spines["bottom"].set_visible(False)
    for row, layer in enumerate(layers):
        text = f"{layer.channels_before}"
        if layer.channels_after < layer.channels_before:
            text = f"{layer.channels_before} → {layer.channels_after}"
        axes.annotate(text, (layer.channels_before, row), (6, 0), textcoords="offset points", va="center", color=MUTED)


def _outline(figure: Figure, layers: Sequence[LayerPlan]) -> None:
    axes = figure.add_subplot()
    edges = np.arange(len(layers) + 1) + 0.5
    axes.stairs([layer.channels_before for layer in layers], edges, fill=True, color=DENSE)
    axes.stairs([layer.channels_after for layer in layers], edges, fill=True, color=SLIM)
    axes.set(xlabel="layer, in the order of the network", ylabel="channels", xlim=(0.5, len(layers) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, prune="lower"))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(axis="y")


def speedups(latencies: Sequence[Latency]) -> dict[str, str]:
    """How many times as fast the slim network is on each runtime, with the 95 % interval."""

    def draw(figure: Figure, canvas: Canvas) -> None:
        axes = figure.add_subplot()
        intervals = [latency.speedup() for latency in latencies]
        for row, interval in enumerate(intervals):
            colour = MUTED if interval.holds_one else SLIM if interval.value > 1 else DEAD
            axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=3, solid_capstyle="butt")
            axes.plot([interval.value], [row], "o", color=colour, markersize=10)
            axes.annotate(
                times(interval.value, 2), (interval.high, row), (9, 0), textcoords="offset points",
                va="center", color=INK, weight="bold",
            )  # fmt: skip
        axes.axvline(1, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        labels = [
            f"{latency.runtime}{chr(10) if canvas.narrow else ', '}batch {latency.batch}" for latency in latencies
        ]
        axes.set_yticks(range(len(latencies)), labels, color=INK)
        lowest = min([0.95, *(interval.low for interval in intervals)])
        highest = max([1.25, *(interval.high for interval in intervals)])
        axes.set(
            ylim=(len(latencies) - 0.5, -0.5),
            xlim=(lowest - 0.05, highest + (highest - lowest) * (0.3 if canvas.narrow else 0.1)),
        )
        axes.set_xlabel("times as fast as the dense network")
        axes.xaxis.set_major_locator(MaxNLocator(4 if canvas.narrow else 7, steps=[1, 2, 5, 10]))
        axes.grid(axis="x")

    return drawing(
        "speedups", "Speed-up of the slim network with its interval", lambda _: 56 + 36 * len(latencies), draw
    )


def gamma_histogram(gammas: Sequence[float], threshold: float) -> dict[str, str]:
    """How many channels have which |γ|, on a logarithmic axis, with the threshold between dead and alive."""
    threshold = max(threshold, SMALLEST_THRESHOLD)
    values = np.maximum(np.abs(np.asarray(gammas, dtype=float)), floor(threshold))

    def draw(figure: Figure, canvas: Canvas) -> None:
        axes = figure.add_subplot()
        edges = _bins(values, threshold, 28 if canvas.narrow else 56)
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
    return drawing("gammas", description, lambda canvas: 250 if canvas.narrow else 280, draw)


def _bins(values: np.ndarray, threshold: float, count: int) -> np.ndarray:
    """Logarithmic bins of which one begins at the threshold, so that no bar is half dead."""
    low = np.log10(min(values.min(initial=1.0), threshold / 10))
    high = np.log10(max(values.max(initial=threshold), threshold * 10) * 1.001)
    step = (high - low) / count
    middle = np.log10(threshold)
    below, above = int(np.ceil((middle - low) / step)), int(np.ceil((high - middle) / step))
    return np.asarray(10 ** (middle + step * np.arange(-below, above + 1)))


def progress(training: Training) -> dict[str, str]:
    """The loss, and under it the part of the channels that is dead, over the iterations."""

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

    return drawing("progress", "Loss and dead channels over the training", lambda _: 330, draw)


def gamma_traces(training: Training, threshold: float) -> dict[str, str]:
    """|γ| of the channels over the iterations, each a line: those that end under the threshold died."""
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

    return drawing("traces", "The size of every γ over the training", lambda canvas: 330, draw)
