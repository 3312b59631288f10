"""The numbers of a drawing as a table, which a page shows below it: for those who do not see it, and to be copied."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np

from slimnet.report.formatting import SPACE, percent, printable

MOST_ROWS = 60
"""How many points of a curve are in a table."""

MOST_COLUMNS = 8
"""How many points in time are in a row of a table."""

QUANTILES = {"Lowest": 0.0, f"10{SPACE}%": 0.1, "Median": 0.5, f"90{SPACE}%": 0.9, "Highest": 1.0}
"""Quantiles of a distribution by their headings."""

NOTHING = "–"

T = TypeVar("T")


@dataclass(frozen=True)
class Numbers:
    """A table as text: its headings, its rows, and in `note` what of the drawing is not in it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    @classmethod
    def of(cls, columns: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> "Numbers":
        """From any sequences; names from files are made printable."""
        return cls(tuple(columns), tuple(tuple(printable(cell) for cell in row) for row in rows), note)


@dataclass(frozen=True)
class TableOnPage:
    """The numbers are in a table that the page shows in any case: the id of its element."""

    id: str


def filled_columns(columns: Mapping[str, Callable[[T], str]], items: Sequence[T], empty: str) -> dict[str, list[str]]:
    """The cells of every item by heading, without the columns in which all are `empty`."""
    found = {heading: [cell(each) for each in items] for heading, cell in columns.items()}
    return {heading: cells for heading, cells in found.items() if set(cells) != {empty}}


def spaced(values: Sequence[T], most: int = MOST_ROWS) -> list[T]:
    """All of the values if they are few, otherwise `most` of them, evenly spaced from the first to the last."""
    if len(values) <= most:
        return list(values)
    return [values[round(place)] for place in np.linspace(0, len(values) - 1, most)]


def left_out(count: int, what: str, most: int = MOST_ROWS) -> str:
    """The note of a table with `spaced` values; empty if all of them are in it."""
    return "" if count <= most else f"{most} of {count:,} {what}, evenly spaced."


def short(value: float | None) -> str:
    """A number with three significant digits; a dash if there is none."""
    return NOTHING if value is None or not np.isfinite(value) else f"{value:.3g}"


def share(value: float | None) -> str:
    """A share, 0..1, in per cent; a dash if there is none."""
    return NOTHING if value is None or not np.isfinite(value) else percent(value, 1)


def histogram_rows(layers: Mapping[str, tuple[np.ndarray, float]], edges: np.ndarray, first: str = "Layer") -> Numbers:
    """Histograms of universality: for each layer the share of features in each bin, and of those that are dead."""
    bins = [f"{100 * low:.3g} to {100 * high:.3g}{SPACE}%" for low, high in pairwise(edges.tolist())]
    rows = [(name, share(dead), *(share(float(part)) for part in parts)) for name, (parts, dead) in layers.items()]
    return Numbers.of((first, "Dead", *bins), rows)


def distributions(histories: Mapping[str, tuple[np.ndarray, np.ndarray]], first: str, note: str = "") -> Numbers:
    """How values `(T, channels)` were distributed at `iterations` `(T,)`: a few points in time for each history."""
    rows = []
    for name, (iterations, values) in histories.items():
        for place in spaced(range(len(iterations)), MOST_COLUMNS):
            finite = values[place][np.isfinite(values[place])]
            quantiles = np.quantile(finite, list(QUANTILES.values())) if finite.size else None
            cells = [NOTHING] * len(QUANTILES) if quantiles is None else [short(float(each)) for each in quantiles]
            rows.append((name, f"{iterations[place]:,}", *cells))
    longest = max((len(iterations) for iterations, _ in histories.values()), default=0)
    notes = (note, left_out(longest, "points in time", MOST_COLUMNS))
    return Numbers.of((first, "Iteration", *QUANTILES), rows, " ".join(filter(None, notes)))
