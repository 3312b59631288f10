"""The plot of figure 4 and of supplementary figure 3."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from slimnet.report.drawing.axes import few_iterations_axis
from slimnet.report.drawing.numbers import MOST_COLUMNS, Numbers, left_out, short, spaced
from slimnet.report.drawing.svg import DEAD, INK, MUTED, SLIM, Canvas, Drawing, drawing
from slimnet.report.formatting import tiny
from slimnet.reproduction.scalars import NAMES, Curve, ScalarFigure

PANEL = 170
"""The height of a panel in CSS pixels."""

LINES = ((DEAD, "-"), (SLIM, "-"), (INK, "-"), (MUTED, "-"), (MUTED, (0, (4, 2))))
"""Colour and dashes of every λ, the largest first; they are repeated if there are more."""


def draw_scalars(figure: ScalarFigure) -> Drawing:
    """The absolute value of the scalar over the iterations, a panel for each optimiser and regulariser.

    Lines are medians over the seeds, and the bands are from the 10th to the 90th percentile.
    """
    name = figure.title.lower().replace(" ", "-")
    panels = list(dict.fromkeys((each.optimiser, each.regulariser) for each in figure.curves))

    def draw(plot: Figure, canvas: Canvas) -> None:
        columns = 1 if canvas.narrow else 2
        grid = plot.subplots(-(-len(panels) // columns), columns, squeeze=False, sharex=True, sharey=True)
        for axes, panel in zip(grid.flat, panels, strict=False):
            curves = [each for each in figure.curves if (each.optimiser, each.regulariser) == panel]
            _panel(axes, curves, figure.strengths)
            axes.set_title(f"{NAMES[panel[0]]}, {NAMES[panel[1]]}", loc="left", color=INK, fontsize=12)
            axes.set(ylim=(0, 1.12 * figure.gradients.start))
            few_iterations_axis(axes, figure.gradients.iterations, canvas)
        for axes in grid[-1]:
            axes.set_xlabel("iteration")
        lines = grid.flat[0].get_lines()
        plot.legend(
            handles=lines, loc="outside upper left", ncols=3 if canvas.narrow else len(lines), frameon=False,
            labelcolor=INK, handlelength=1.6, columnspacing=1.6, borderaxespad=0,
        )  # fmt: skip

    def height(canvas: Canvas) -> float:
        return PANEL * (len(panels) if canvas.narrow else -(-len(panels) // 2)) + 60

    description = f"{figure.title}: how far regularisers bring a number down under low gradients, by optimiser and λ"
    return drawing(name, description, height, draw, _numbers(figure))


def _numbers(figure: ScalarFigure) -> Numbers:
    """A row for each curve: its median, and in brackets its band, at a few iterations."""
    places = spaced(range(len(figure.curves[0].iterations)), MOST_COLUMNS)
    rows = [
        (
            NAMES[curve.optimiser],
            NAMES[curve.regulariser],
            tiny(curve.strength),
            *(f"{short(curve.median[at])} ({short(curve.low[at])} to {short(curve.high[at])})" for at in places),
        )
        for curve in figure.curves
    ]
    headings = [f"{figure.curves[0].iterations[at]:,}" for at in places]
    note = left_out(len(figure.curves[0].iterations), "points in time", MOST_COLUMNS)
    return Numbers.of(("Optimiser", "Regulariser", "λ, at iteration", *headings), rows, note)


def _panel(axes: Axes, curves: list[Curve], strengths: tuple[float, ...]) -> None:
    for curve in curves:
        colour, dashes = LINES[strengths.index(curve.strength) % len(LINES)]
        axes.fill_between(curve.iterations, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
        label = f"λ = {tiny(curve.strength)}"
        axes.plot(curve.iterations, curve.median, color=colour, linestyle=dashes, label=label)
