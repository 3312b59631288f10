"""The page of a census: the dead weight of every checkpoint as a plot and a table."""

from collections.abc import Sequence
from pathlib import Path

from slimnet.census import CensusRow
from slimnet.report.census import figures, text
from slimnet.report.formatting import percent
from slimnet.report.rendering import fill, marked, write_page
from slimnet.version import installed_version


def write_census(rows: Sequence[CensusRow], threshold: float, path: Path) -> Path:
    """Write the page as one self-contained HTML file, atomically.

    Raises:
        SlimnetError: it cannot be written there.
    """
    return write_page(render_census(rows, threshold), path)


def render_census(rows: Sequence[CensusRow], threshold: float) -> str:
    """The page as HTML text; all names are escaped."""
    channels, dead = sum(row.channels for row in rows), sum(row.dead for row in rows)
    return fill(
        "census.html.jinja",
        title=f"A census of {len(rows)} checkpoints",
        version=installed_version("slimnet"),
        headline=f"{percent(dead / channels if channels else 0.0, 1)} of the channels are dead",
        sentences=text.sentences(rows, threshold),
        rows=[(text.cells(row), row.note) for row in sorted(rows, key=lambda row: -row.dead_share)],
        drawings=marked({"shares": figures.shares(rows)}),
    )
