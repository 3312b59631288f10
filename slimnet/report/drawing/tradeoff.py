"""Plots of error against cost: a mark for each network, a line for each method."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from slimnet.report.drawing.mark import Mark as Mark
from slimnet.report.drawing.numbers import Numbers, filled_columns, share
from slimnet.report.drawing.svg import BLUE, DEAD, GOLD, INK, MUTED, PLUM, SLIM, Canvas, Drawing, drawing
from slimnet.report.formatting import printable

STROKES = ((SLIM, "o"), (BLUE, "s"), (DEAD, "D"), (GOLD, "^"), (PLUM, "v"), (MUTED, "X"), (INK, "P"))
"""Colour and marker of each series; they are repeated if there are more series."""

LOG_FROM = 6.0
ERROR_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 90)
LONGEST_NAME = 24
PIXELS_A_LETTER = 7.0

Shown = Callable[[float], str]


def tradeoff(name: str, description: str, marks: Sequence[Mark], dense: Mark, cost_label: str, shown: Shown) -> Drawing:
    """Error against cost, with a cross-hair at the dense network; lower left is better.

    `shown` formats a cost on the axis; `cost_label` is the label of the axis.
    """
    series = list(dict.fromkeys(mark.series for mark in marks))

    def draw(figure: Figure, canvas: Canvas) -> None:
        axes = figure.add_subplot()
        axes.plot([dense.cost], [100 * dense.error], "+", color=INK, markersize=15, markeredgewidth=2)
        axes.annotate(
            printable(dense.series, LONGEST_NAME), (dense.cost, 100 * dense.error), (-9, 9),
            textcoords="offset points", ha="right", color=INK, weight="bold",
        )  # fmt: skip
        for number, one in enumerate(series):
            own = sorted((mark for mark in marks if mark.series == one), key=lambda mark: mark.cost)
            _line(axes, own, *STROKES[number % len(STROKES)])
        _error_axis(axes, [dense.error, *(each for mark in marks for each in _errors(mark))])
        _cost_axis(axes, cost_label, shown, canvas)
        figure.legend(loc="outside upper left", ncols=_columns(series, canvas), frameon=False, handlelength=1.6)

    rows = -(-len(series) // 2)
    height = lambda canvas: (330 if canvas.narrow else 380) + 12 * rows  # noqa: E731
    return drawing(name, description, height, draw, _numbers([dense, *marks], cost_label, shown))


def _numbers(marks: Sequence[Mark], cost_label: str, shown: Shown) -> Numbers:
    """Every mark, with the columns that one of them has."""
    columns: dict[str, Callable[[Mark], str]] = {
        "Network": lambda mark: mark.series,
        cost_label[0].upper() + cost_label[1:]: lambda mark: shown(mark.cost),
        "Interval": lambda mark: "" if mark.interval is None else " to ".join(map(shown, mark.interval)),
        "Error before fine-tuning": lambda mark: "" if mark.before is None else share(mark.before),
        "Error": lambda mark: share(mark.error),
    }
    kept = filled_columns(columns, marks, "")
    return Numbers.of(tuple(kept), zip(*kept.values(), strict=True))


def _errors(mark: Mark) -> list[float]:
    return [mark.error] if mark.before is None else [mark.error, mark.before]


def _line(axes: Axes, marks: Sequence[Mark], colour: str, marker: str) -> None:
    """One series: filled marks joined by a line, and a thin line from each to its hollow mark."""
    costs = [mark.cost for mark in marks]
    label = printable(marks[0].series, LONGEST_NAME)
    axes.plot(
        costs, [100 * mark.error for mark in marks], color=colour, marker=marker, markersize=8, linewidth=1.6,
        label=f"\u200b{label}" if label.startswith("_") else label,
    )  # fmt: skip
    for mark in marks:
        height = 100 * mark.error
        if mark.interval is not None:
            axes.plot(mark.interval, [height, height], color=colour, linewidth=3, alpha=0.45, solid_capstyle="butt")
        if mark.before is not None:
            axes.plot([mark.cost] * 2, [height, 100 * mark.before], color=colour, linewidth=0.8, linestyle=":")
            axes.plot([mark.cost], [100 * mark.before], color=colour, marker=marker, markersize=8, fillstyle="none")


def _error_axis(axes: Axes, errors: Sequence[float]) -> None:
    """An axis of errors in per cent, logarithmic if the largest error is many times the smallest."""
    low, high = 100 * min(errors), 100 * max(errors)
    axes.set_ylabel("test error, %")
    axes.grid(axis="y")
    if low > 0 and high / low > LOG_FROM:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.25, min(100, high * 1.25))
        axes.yaxis.set_major_locator(FixedLocator([each for each in ERROR_TICKS if low / 1.25 <= each <= high * 1.25]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        room = max(0.15 * (high - low), 0.05 * high, 0.1)
        axes.set_ylim(max(0, low - room), high + room)
        axes.yaxis.set_major_locator(MaxNLocator(5))


def _cost_axis(axes: Axes, label: str, shown: Shown, canvas: Canvas) -> None:
    axes.set_xlim(left=0)
    axes.margins(x=0.04)
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(4 if canvas.narrow else 7, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value) if value else "0"))


def _columns(series: Sequence[str], canvas: Canvas) -> int:
    """The number of columns of the legend."""
    longest = max((len(printable(each, LONGEST_NAME)) for each in series), default=1)
    return max(1, min(len(series), int((canvas.width - 10) / (PIXELS_A_LETTER * longest + 40))))


def per_cent(fraction: float) -> str:
    """A fraction of the dense network's cost."""
    return f"{100 * fraction:.{0 if fraction >= 1 else 3}{'f' if fraction >= 1 else 'g'}}\u202f%"


def milliseconds(value: float) -> str:
    """A latency."""
    return f"{value:.5g}"
