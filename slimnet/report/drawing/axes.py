"""Axes that several figures share: iterations, losses, powers of ten, and the line between dead and alive."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from slimnet.report.drawing.svg import INK, Canvas
from slimnet.report.formatting import tiny

DECADES_BELOW_THRESHOLD = 3
FEWEST_DECADES_FOR_LOG = 1.0
MOST_DECADES_IN_STEPS = 2.5
SMALLEST_LOSS = 1e-12


def iterations_axis(axes: Axes, last: int, canvas: Canvas) -> None:
    """Iterations from 0 to the last."""
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(4 if canvas.narrow else 8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="y")


def few_iterations_axis(axes: Axes, last: int, canvas: Canvas) -> None:
    """Iterations from 0 to the last on a panel with room for two or three short numbers."""
    iterations_axis(axes, last, canvas)
    axes.xaxis.set_major_locator(MaxNLocator(2 if canvas.narrow else 3, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value)))


def thousands(number: float) -> str:
    """Iterations as short text: 0, 500, 2 k, 1.5 k, 400 k."""
    return f"{number:g}" if number < 1000 else f"{number / 1000:g}\u202fk"


def loss_axis(axes: Axes, losses: Sequence[float]) -> None:
    """A loss axis, logarithmic if the loss falls over several decades."""
    axes.set(ylabel="loss")
    low = max(min(losses), SMALLEST_LOSS)
    decades = np.log10(max(*losses, low) / low)
    if decades > FEWEST_DECADES_FOR_LOG:
        axes.set_yscale("log")
        close = decades < MOST_DECADES_IN_STEPS
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if close else (1,), numticks=6))
        axes.yaxis.set_major_formatter(powers())
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(4))


def threshold_line(axes: Axes, threshold: float, *, vertical: bool) -> None:
    """A labelled dashed line at the threshold between dead and live channels."""
    line = axes.axvline if vertical else axes.axhline
    line(threshold, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    place = (threshold, 1.0) if vertical else (0.0, threshold)
    offset = (-6, -2) if vertical else (6, -6)
    transform = axes.get_xaxis_transform() if vertical else axes.get_yaxis_transform()
    axes.annotate(
        "threshold", place, offset, xycoords=transform, textcoords="offset points",
        ha="right" if vertical else "left", va="top", color=INK,
    )  # fmt: skip


def floor(threshold: float) -> float:
    """The smallest |γ| of the axis; smaller ones are drawn there."""
    return threshold / 10**DECADES_BELOW_THRESHOLD


def powers(lowest: float = 0.0) -> FuncFormatter:
    """A formatter that shows 1e-05 as 10⁻⁵, numbers near 1 unchanged, and the lowest one as "≤"."""

    def shown(value: float, _: object) -> str:
        text = f"{value:g}" if 0.000_999 <= value <= 100 else tiny(value)
        return f"≤ {text}" if value < 1.5 * lowest else text

    return FuncFormatter(shown)
