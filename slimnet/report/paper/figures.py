"""The figures of a reproduction: sparsity compared with the paper's, histories of γ and β, universality of features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slimnet.report.drawing.axes import few_iterations_axis
from slimnet.report.drawing.heatmap import between, draw_cells, shares
from slimnet.report.drawing.numbers import Numbers, TableOnPage, distributions, histogram_rows
from slimnet.report.drawing.svg import DEAD, DENSE, INK, MUTED, SLIM, Canvas, Drawing, drawing
from slimnet.report.formatting import printable
from slimnet.report.training.figures import FAINTEST
from slimnet.training.analysis.metrics import DEAD_BELOW

VALUE_BINS = 36
ROW_HEIGHT = 22
LABEL_WIDTH = 34


@dataclass(frozen=True, eq=False)
class Moved:
    """The history of γ and β `(T, channels)` of one layer in a run, at `iterations` `(T,)`."""

    label: str
    iterations: np.ndarray
    gammas: np.ndarray
    betas: np.ndarray


@dataclass(frozen=True)
class Bar:
    """A row of a comparison: sparsity by γ in per cent, the paper's and ours; None if there is none.

    `spread` is half the range of the seeds, 0 for a single seed.
    """

    label: str
    paper: float | None
    ours: float | None
    spread: float = 0.0


def comparison(name: str, panels: Mapping[str, Sequence[Bar]]) -> Drawing:
    """Sparsity by γ of every row, a panel for each data set: the paper's as a bar, ours as a dot with the spread."""

    def draw(figure: Figure, canvas: Canvas) -> None:
        rows = len(panels) if canvas.narrow else 1
        every = figure.subplots(rows, len(panels) // rows, squeeze=False).ravel()
        for number, (axes, (title, bars)) in enumerate(zip(every, panels.items(), strict=True)):
            _bars(axes, bars, labelled=canvas.narrow or number == 0)
            axes.set_title(title, fontsize=12, color=INK, loc="left")

    most = max(len(bars) for bars in panels.values())
    height = lambda canvas: (most * ROW_HEIGHT + 56) * (len(panels) if canvas.narrow else 1)  # noqa: E731
    return drawing(name, "Sparsity by γ: the paper's and ours", height, draw, TableOnPage(f"{name}-table"))


def _bars(axes: Axes, bars: Sequence[Bar], *, labelled: bool) -> None:
    for row, bar in enumerate(bars):
        if bar.paper is not None:
            axes.barh(row, bar.paper, 0.6, color=DENSE)
        if bar.ours is not None:
            axes.plot([bar.ours - bar.spread, bar.ours + bar.spread], [row, row], color=DEAD, linewidth=2)
            axes.plot([bar.ours], [row], "o", color=DEAD, markersize=6)
    names = [printable(bar.label, LABEL_WIDTH) for bar in bars] if labelled else [""] * len(bars)
    axes.set_yticks(range(len(bars)), names, color=INK)
    axes.set(xlim=(-2, 102), ylim=(len(bars) - 0.4, -0.6), xticks=[0, 50, 100], xticklabels=["0", "50", "100 %"])
    axes.grid(axis="x")
    axes.spines["bottom"].set_visible(False)


def history(name: str, runs: Sequence[Moved]) -> Drawing:
    """The distribution of γ (above) and β (below) of one layer over the training, a column for each run."""
    edges = [_edges([run.gammas for run in runs]), _edges([run.betas for run in runs])]

    def draw(figure: Figure, canvas: Canvas) -> None:
        columns = min(len(runs), 2) if canvas.narrow else len(runs)
        blocks = -(-len(runs) // columns)
        every = figure.subplots(2 * blocks, columns, squeeze=False, sharey="row")
        for number in range(blocks * columns):
            pair = every[2 * (number // columns) : 2 * (number // columns) + 2, number % columns]
            if number < len(runs):
                _moved(pair, runs[number], edges, canvas)
            else:
                for axes in pair:
                    axes.set_axis_off()
        for block in range(blocks):
            every[2 * block, 0].set_ylabel("γ")
            every[2 * block + 1, 0].set_ylabel("β")

    height = lambda canvas: 300 * (-(-len(runs) // 2) if canvas.narrow else 1) + 24  # noqa: E731
    moved = {
        f"{run.label}, {letter}": (run.iterations, values)
        for run in runs
        for letter, values in (("γ", run.gammas), ("β", run.betas))
    }
    return drawing(name, "How γ and β moved over the training", height, draw, distributions(moved, "Run"))


def _moved(pair: np.ndarray, run: Moved, edges: Sequence[np.ndarray], canvas: Canvas) -> None:
    dead = np.abs(run.gammas) < DEAD_BELOW
    for axes, values, bins in zip(pair, (run.gammas, run.betas), edges, strict=True):
        for part, colour in ((~dead, SLIM), (dead, DEAD)):
            strength = shares(np.where(part, values, np.nan), bins, values.shape[1])
            strength = np.where(strength > 0, FAINTEST + (1 - FAINTEST) * np.sqrt(strength), 0.0)
            draw_cells(axes, between(run.iterations), bins, strength, colour)
        axes.set_ylim(bins[0], bins[-1])
        axes.axhline(0, color=MUTED, linewidth=1, zorder=0)
        few_iterations_axis(axes, int(run.iterations[-1]), canvas)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    pair[0].set_title(printable(run.label, 20), fontsize=12, color=INK, loc="left")


def _edges(values: Sequence[np.ndarray]) -> np.ndarray:
    every = np.concatenate([each.ravel() for each in values])
    low, high = min(0.0, float(every.min())), max(0.0, float(every.max()))
    room = 0.02 * (high - low) or 1.0
    return np.linspace(low - room, high + room, VALUE_BINS + 1)


def universality(name: str, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Drawing:
    """A panel for each run, a row for each layer: a histogram of its features by universality."""
    layers = max(len(each) for each in runs.values())

    def draw(figure: Figure, canvas: Canvas) -> None:
        columns = 1 if canvas.narrow else 2
        every = figure.subplots(-(-len(runs) // columns), columns, squeeze=False).ravel()
        for axes, (label, found) in zip(every, runs.items(), strict=False):
            _layers(axes, found)
            axes.set_title(printable(label, LABEL_WIDTH), fontsize=12, color=INK, loc="left")
        for axes in every[len(runs) :]:
            axes.set_axis_off()

    height = lambda canvas: (layers * ROW_HEIGHT + 56) * -(-len(runs) // (1 if canvas.narrow else 2))  # noqa: E731
    return drawing(name, "Universality of the features of every layer", height, draw, _universalities(runs))


def _universalities(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Numbers:
    """The histograms of every layer of every run; all of them have as many bins."""
    found = {}
    for label, layers in runs.items():
        for number, layer in enumerate(layers, 1):
            parts = np.asarray(layer["bins"], dtype=float) / layer["features"]
            found[f"{label}, C{number}"] = parts, 1 - float(parts.sum())
    bins = max((len(parts) for parts, _ in found.values()), default=1)
    return histogram_rows(found, np.linspace(0, 1, bins + 1), "Run, layer")


def _layers(axes: Axes, layers: Sequence[Mapping[str, Any]]) -> None:
    for row, layer in enumerate(layers):
        bins = np.asarray(layer["bins"], dtype=float) / layer["features"]
        strength = np.where(bins > 0, FAINTEST + (1 - FAINTEST) * np.sqrt(bins), 0.0)
        band = np.asarray([row - 0.42, row + 0.42])
        draw_cells(axes, np.linspace(0, 100, len(bins) + 1), band, strength[:, None], SLIM)
        dead = 1 - bins.sum()
        draw_cells(axes, np.asarray([-13.0, -3.0]), band, np.asarray([[dead]]), DEAD)
        axes.annotate(f"{100 * dead:.0f}", (-8, row), ha="center", va="center", color=INK, fontsize=10)
    axes.set(xlim=(-14, 100), ylim=(len(layers) - 0.5, -0.5))
    axes.set_xticks([-8, 0, 50, 100], ["dead", "0", "50", "100 %"])
    axes.set_yticks(range(len(layers)), [f"C{number}" for number in range(1, len(layers) + 1)], color=INK)
