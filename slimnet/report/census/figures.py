"""The figure of a census: the share of dead channels in every checkpoint, and of the MACs removed with them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from slimnet.census import CensusRow
from slimnet.report.census.text import share_removed, short_name
from slimnet.report.drawing.numbers import TableOnPage
from slimnet.report.drawing.svg import DEAD, INK, MUTED, SLIM, Canvas, Drawing, drawing
from slimnet.report.formatting import percent, printable

MOST_ROWS = 40
"""How many checkpoints are drawn: those with the largest shares."""


def shares(rows: Sequence[CensusRow]) -> Drawing:
    """Two bars a checkpoint, those with the most dead channels first."""
    shown = sorted((row for row in rows if row.channels), key=lambda row: -row.dead_share)[:MOST_ROWS]

    def draw(figure: Figure, canvas: Canvas) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(shown))
        dead = [row.dead_share for row in shown]
        removed = [share_removed(row.macs) if row.macs else 0.0 for row in shown]
        axes.barh(places - 0.19, dead, 0.36, color=DEAD, label="dead channels")
        axes.barh(places + 0.19, removed, 0.36, color=SLIM, label="MACs removed")
        names = [printable(short_name(row.name), 17 if canvas.narrow else 40) for row in shown]
        axes.set_yticks(places, names, color=INK)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value, 1)))
        axes.locator_params(axis="x", nbins=3 if canvas.narrow else 6)
        axes.grid(axis="x")
        for place, row in enumerate(shown):
            words = percent(row.dead_share, 1)
            axes.annotate(
                words, (row.dead_share, place - 0.19), (6, 0), textcoords="offset points", va="center", color=MUTED
            )
        figure.legend(loc="outside upper left", ncols=2, frameon=False, labelcolor=INK)

    description = f"Share of dead channels, and of the MACs removed, in {len(shown)} checkpoints"
    return drawing("census", description, lambda _: 70 + 34 * len(shown), draw, TableOnPage("checkpoints"))
