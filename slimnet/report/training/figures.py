"""The figures of a training run's report: progress, dead filters, histories of γ and β, universality of features."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from slimnet.report.drawing.axes import few_iterations_axis, iterations_axis, loss_axis
from slimnet.report.drawing.heatmap import between, draw_cells, shares
from slimnet.report.drawing.numbers import Numbers, distributions, histogram_rows, spaced
from slimnet.report.drawing.svg import DEAD, DENSE, GRID, INK, MUTED, SLIM, Canvas, Drawing, drawing
from slimnet.report.formatting import amount, percent, printable
from slimnet.report.training.numbers import deaths_in_numbers, layers_in_numbers, reports_in_numbers
from slimnet.report.training.record import TrainingRecord
from slimnet.training.analysis.metrics import DEAD_BELOW
from slimnet.training.analysis.universality import LayerAnalysis

MOST_PANELS = 8
MOST_BARS = 40
VALUE_BINS = 36
DEAD_STRIP = 3.5
"""The width, in bins, of the strip with all dead γ."""

UNIVERSALITY = "Universality of the features of every layer"
UNIVERSALITY_BINS = 20
FAINTEST = 0.2


def progress(record: TrainingRecord) -> Drawing:
    """Loss, training error, dead filters and the MACs after slimming, over the iterations.

    For a run that removes dead filters also the time of a step.
    """
    parts = [_loss, _error, _dead]
    if len(record.forecasts) > 1:
        parts.append(_forecast)
    if record.shrinks and len(record.pace[0]) > 1:
        parts.append(_pace)

    def draw(figure: Figure, canvas: Canvas) -> None:
        rows = np.atleast_1d(figure.subplots(len(parts), 1, sharex=True))
        for axes, part in zip(rows, parts, strict=True):
            part(axes, record)
            iterations_axis(axes, record.last.iteration, canvas)
            for drop in record.drops:
                axes.axvline(drop, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        rows[-1].set_xlabel("iteration")
        figure.align_ylabels(rows)
        if record.drops:
            factor = f"lr × {record.recipe.drop_factor:g}"
            rows[0].annotate(
                factor, (record.drops[0], 1), (5, -1), xycoords=rows[0].get_xaxis_transform(),
                textcoords="offset points", va="top", color=MUTED,
            )  # fmt: skip

    description, height = "Loss, error, dead filters and predicted cost", 128 * len(parts) + 30
    return drawing("progress", description, lambda _: height, draw, reports_in_numbers(record))


def _loss(axes: Axes, record: TrainingRecord) -> None:
    axes.plot(record.iterations, record.losses, color=INK, linewidth=1.5)
    loss_axis(axes, record.losses)


def _error(axes: Axes, record: TrainingRecord) -> None:
    errors = 100 * np.asarray(record.errors)
    axes.plot(record.iterations, errors, color=INK, linewidth=1.5)
    iterations, validated = record.validation
    if validated:
        values = [100 * error for error in validated]
        best = int(np.argmin(values))
        axes.plot(iterations, values, color=SLIM, marker="o", markersize=3)
        axes.plot(iterations[best], values[best], color=SLIM, marker="o", markersize=7)
        _ending(axes, (iterations[-1], values[-1]), "validation", SLIM)
    axes.set(ylabel="error, %", ylim=(0, max(5.0, 1.08 * float(max([*errors, *(100 * each for each in validated)])))))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))


def _dead(axes: Axes, record: TrainingRecord) -> None:
    dead = 100 * np.asarray(record.sparsity)
    axes.fill_between(record.iterations, dead, color=DEAD, alpha=0.22, linewidth=0)
    axes.plot(record.iterations, dead, color=DEAD)
    axes.set(ylabel="dead, %", ylim=(0, max(10.0, 1.25 * float(dead.max()))))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    _ending(axes, (record.iterations[-1], dead[-1]), percent(record.sparsity[-1]), DEAD)


def _forecast(axes: Axes, record: TrainingRecord) -> None:
    known = record.forecasts
    iterations = [each.iteration for each in known]
    left = [each.macs_if_slimmed or 0 for each in known]
    axes.fill_between(iterations, left, color=SLIM, alpha=0.22, linewidth=0)
    axes.plot(iterations, left, color=SLIM)
    dense, (cuts, trained) = known[0].macs or 0, record.macs_left
    # The MACs of each step: those of the dense network up to the first cut.
    steps = [0, *cuts, record.last.iteration], [dense, *trained, trained[-1] if trained else dense]
    axes.step(*steps, color=DENSE, linewidth=2, where="post")
    axes.set(ylabel="MACs", ylim=(0, 1.1 * max(each.macs or 0 for each in known)))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))
    _ending(axes, (iterations[-1], left[-1]), amount(left[-1]), SLIM)


def _pace(axes: Axes, record: TrainingRecord) -> None:
    iterations, milliseconds = record.pace
    axes.plot(iterations, milliseconds, color=INK, linewidth=1.5)
    axes.set(ylabel="ms a step", ylim=(0, 1.15 * float(np.quantile(milliseconds, 0.98))))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    last = float(np.median(milliseconds[-5:]))
    _ending(axes, (float(iterations[-1]), last), f"{last:.3g} ms", INK)


def _ending(axes: Axes, place: tuple[float, float], text: str, colour: str) -> None:
    """The label of a curve's last value, at its end."""
    axes.annotate(text, place, (5, 0), textcoords="offset points", va="center", color=colour, weight="bold")


def layer_sparsity(record: TrainingRecord) -> Drawing:
    """The share of dead filters of every layer at the end, by γ and, if measured, by activation."""
    layers = list(record.alive.items())
    description = f"Share of dead filters in {len(layers)} layers"
    numbers = layers_in_numbers(record)
    if len(layers) > MOST_BARS:
        return drawing("layers", description, lambda _: 240, lambda figure, _: _dead_outline(figure, record), numbers)

    def draw(figure: Figure, canvas: Canvas) -> None:
        axes = figure.add_subplot()
        for row, (norm, (size, alive)) in enumerate(layers):
            axes.barh(row, 100, 0.62, color=GRID)
            axes.barh(row, 100 * (size - alive) / size, 0.62, color=DEAD)
            measured = record.analysed(norm)
            if measured is not None and measured.dead_by_activation is not None:
                place = 100 * measured.dead_by_activation / measured.features
                axes.plot([place, place], [row - 0.31, row + 0.31], color=INK, linewidth=2, solid_capstyle="butt")
            text = f"{size - alive}{'/' if canvas.narrow else ' of '}{size}"
            axes.annotate(text, (100, row), (6, 0), textcoords="offset points", va="center", color=MUTED)
        _layer_rows(axes, record, [norm for norm, _ in layers], canvas)
        axes.set(xlim=(0, 100), xticks=[0, 50, 100], xticklabels=["0", "50", "100 %"])
        axes.spines["bottom"].set_visible(False)

    height = lambda canvas: 46 + len(layers) * (24 if canvas.narrow else 22)  # noqa: E731
    return drawing("layers", description, height, draw, numbers)


def _dead_outline(figure: Figure, record: TrainingRecord) -> None:
    axes = figure.add_subplot()
    edges = np.arange(len(record.alive) + 1) + 0.5
    dead = [100 * (1 - alive / size) for size, alive in record.alive.values()]
    axes.stairs(dead, edges, fill=True, color=DEAD)
    found = [record.analysed(norm) for norm in record.alive]
    marks = [(x, each) for x, each in enumerate(found, start=1) if each and each.dead_by_activation is not None]
    heights = [100 * (each.dead_by_activation or 0) / each.features for _, each in marks]
    axes.plot([x for x, _ in marks], heights, ".", color=INK, markersize=4)
    axes.set(xlabel="layer, in the order of the network", ylabel="dead, %", xlim=(0.5, len(dead) + 0.5), ylim=(0, 100))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, prune="lower"))
    axes.grid(axis="y")


def _layer_rows(axes: Axes, record: TrainingRecord, norms: Sequence[str], canvas: Canvas) -> None:
    names = [printable(record.name_of(norm), 17 if canvas.narrow else 34) for norm in norms]
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _numbered_rows(axes: Axes, count: int) -> None:
    axes.set(ylabel="layer", ylim=(count - 0.5, -0.5))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda row, _: f"{row + 1:.0f}"))


def deaths(record: TrainingRecord) -> Drawing:
    """The share of dead filters over the training: a row for each layer, more opaque with more dead filters."""
    dead = record.dead
    names = list(dead)
    spelled = len(names) <= MOST_BARS
    height = 24 if spelled else 240 / len(names)

    def draw(figure: Figure, canvas: Canvas) -> None:
        axes = figure.add_subplot()
        half = 0.38 if spelled else 0.5
        for row, name in enumerate(names):
            band = np.asarray([row - half, row + half])
            draw_cells(axes, between(record.kept_at), band, dead[name][:, None], DEAD)
        if spelled:
            _layer_rows(axes, record, names, canvas)
        else:
            _numbered_rows(axes, len(names))
        iterations_axis(axes, record.last.iteration, canvas)
        axes.grid(visible=False)
        axes.set_xlabel("iteration")

    description = "Share of dead filters over the training"
    return drawing("deaths", description, lambda _: 58 + height * len(names), draw, deaths_in_numbers(record))


def gamma_history(record: TrainingRecord) -> Drawing:
    """The distribution of γ in each layer over the training (the paper's figure 2); dead ones in a strip below."""
    low, high = _range([record.gammas[name] for name in _shown(record.layers)])
    width = (high - low) / VALUE_BINS
    floor = low - DEAD_STRIP * width

    def panel(axes: Axes, name: str) -> None:
        gammas, columns = record.gammas[name], between(record.kept_at)
        dead = np.abs(gammas) < DEAD_BELOW
        edges = np.linspace(low, high, VALUE_BINS + 1)
        draw_cells(axes, columns, edges, _strength(shares(np.where(dead, np.nan, gammas), edges, dead.shape[1])), SLIM)
        strip = np.asarray([floor, low - width])
        draw_cells(axes, columns, strip, dead.mean(1)[:, None], DEAD)
        axes.set_ylim(floor, high)

    return _history("gammas", "γ of every layer over the training", record, record.gammas, record.layers, panel)


def beta_history(record: TrainingRecord) -> Drawing:
    """The distribution of β in each layer over the training, with dead channels in another colour."""
    layers = [name for name in record.layers if name in record.betas]
    low, high = _range([record.betas[name] for name in _shown(layers)])

    def panel(axes: Axes, name: str) -> None:
        betas, columns = record.betas[name], between(record.kept_at)
        dead = np.abs(record.gammas[name]) < DEAD_BELOW
        edges = np.linspace(low, high, VALUE_BINS + 1)
        for part, colour in ((~dead, SLIM), (dead, DEAD)):
            values = np.where(part, betas, np.nan)
            draw_cells(axes, columns, edges, _strength(shares(values, edges, dead.shape[1])), colour)
        axes.set_ylim(low, high)
        axes.axhline(0, color=MUTED, linewidth=1, zorder=0)

    return _history("betas", "β of every layer over the training", record, record.betas, layers, panel)


def _history(
    name: str,
    description: str,
    record: TrainingRecord,
    values: Mapping[str, np.ndarray],
    layers: Sequence[str],
    panel: Callable[[Axes, str], None],
) -> Drawing:
    shown = _shown(layers)
    numbers = distributions({record.name_of(layer): (record.kept_at, values[layer]) for layer in shown}, "Layer")

    def draw(figure: Figure, canvas: Canvas) -> None:
        for number, (axes, layer) in enumerate(zip(_grid(figure, canvas, len(shown)), shown, strict=True)):
            panel(axes, layer)
            few_iterations_axis(axes, record.last.iteration, canvas)
            axes.set_title(printable(record.name_of(layer), 20), fontsize=12, color=INK, loc="left")
            axes.yaxis.set_major_locator(MaxNLocator(4))
            if number < len(shown) - _columns(canvas):
                axes.xaxis.set_major_formatter(FuncFormatter(lambda *_: ""))

    return drawing(name, description, lambda canvas: 150 * -(-len(shown) // _columns(canvas)) + 24, draw, numbers)


def _grid(figure: Figure, canvas: Canvas, count: int) -> list[Axes]:
    """A grid of `count` panels, as many in a row as fit; panels of a row share their scale."""
    columns = _columns(canvas)
    panels = figure.subplots(-(-count // columns), columns, sharey=True, squeeze=False).ravel().tolist()
    for axes in panels[count:]:
        axes.set_axis_off()
    return panels[:count]


def _columns(canvas: Canvas) -> int:
    return 2 if canvas.narrow else 4


def _shown(layers: Sequence[str]) -> list[str]:
    """All layers if there are few, otherwise some of them, evenly spaced from the first to the last."""
    return spaced(layers, MOST_PANELS)


def _range(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """The range from the smallest to the largest value, including zero, with a margin."""
    finite = np.concatenate([each[np.isfinite(each)].ravel() for each in values])
    low, high = min(0.0, float(finite.min(initial=0.0))), max(0.0, float(finite.max(initial=0.0)))
    room = 0.02 * (high - low) or 1.0
    return (low - room if low < 0 else low), high + room


def _strength(part: np.ndarray) -> np.ndarray:
    """The opacity of a share, so that a single channel among hundreds is visible."""
    return np.where(part > 0, FAINTEST + (1 - FAINTEST) * np.sqrt(part), 0.0)


def universality(layers: Sequence[LayerAnalysis]) -> Drawing:
    """A histogram of each layer's features by universality (the paper's figures 3 and 5)."""
    measured = [layer for layer in layers if layer.universalities is not None]
    edges = np.linspace(0, 1, UNIVERSALITY_BINS + 1)
    counted = [_responding(layer, edges) for layer in measured]
    numbers = histogram_rows({layer.layer: each for layer, each in zip(measured, counted, strict=True)}, edges)
    if len(measured) > 2 * MOST_PANELS:
        return _universality_map(counted, edges, numbers)
    ceiling = 1.15 * max([0.05, *(float(parts.max()) for parts, _ in counted)])

    def draw(figure: Figure, canvas: Canvas) -> None:
        panels = _grid(figure, canvas, len(measured))
        for number, (axes, layer, (parts, dead)) in enumerate(zip(panels, measured, counted, strict=True)):
            axes.bar(100 * edges[:-1] + 2.5, 100 * parts, 4.2, color=SLIM)
            axes.bar(-6, 100 * min(dead, ceiling), 7, color=DEAD)
            axes.set(xlim=(-12, 102), ylim=(0, 100 * ceiling), xticks=[0, 50, 100])
            axes.set_xticklabels(["0", "50", "100 %"] if number >= len(measured) - _columns(canvas) else [])
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.grid(axis="y")
            axes.set_title(printable(layer.layer, 20), fontsize=12, color=INK, loc="left")
            if dead:
                axes.annotate(f"{percent(dead)} dead", (-1, 0.97), xycoords=axes.get_xaxis_transform(),
                              ha="left", va="top", color=DEAD, weight="bold")  # fmt: skip

    rows: Callable[[Canvas], int] = lambda canvas: -(-len(measured) // _columns(canvas))  # noqa: E731
    return drawing("universality", UNIVERSALITY, lambda canvas: 140 * rows(canvas) + 24, draw, numbers)


def _universality_map(counted: Sequence[tuple[np.ndarray, float]], edges: np.ndarray, numbers: Numbers) -> Drawing:
    """A row for each layer, if there are too many for a panel each."""

    def draw(figure: Figure, canvas: Canvas) -> None:
        axes = figure.add_subplot()
        for row, (parts, dead) in enumerate(counted):
            band = np.asarray([row - 0.5, row + 0.5])
            draw_cells(axes, 100 * edges, band, _strength(parts)[:, None], SLIM)
            draw_cells(axes, np.asarray([-11.0, -2.0]), band, np.asarray([[dead]]), DEAD)
        axes.set_xlim(-12, 100)
        axes.set_xticks([-6.5, 25, 50, 75, 100], ["dead", "25", "50", "75", "100 %"])
        _numbered_rows(axes, len(counted))

    height = max(180.0, min(420.0, 10.0 * len(counted))) + 40
    return drawing("universality", UNIVERSALITY, lambda _: height, draw, numbers)


def _responding(layer: LayerAnalysis, edges: np.ndarray) -> tuple[np.ndarray, float]:
    """The share of a layer's features in each bin of universality, and the share that responds to no image."""
    values = np.asarray(layer.universalities)
    alive = values[values > 0]
    return np.histogram(alive, edges)[0] / values.size, 1 - alive.size / values.size
