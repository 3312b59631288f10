"""Grid: a table without boxes in which no word and no number is broken or cropped, however narrow the terminal is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

GAPS = (3, 2, 1)
"""Blanks between two columns: the most with which the table fits."""


class Grid(Table):
    """A table that breaks lines between words only; what does not fit then is longer than a line of the terminal."""

    def __init__(self, headings: Sequence[str], right: Iterable[int]) -> None:
        """A table with these headings; columns in `right`, and the first one, are in one line."""
        super().__init__(box=None, pad_edge=False, header_style="dim", show_header=any(headings))
        aligned = set(right)
        for number, heading in enumerate(headings):
            justify = "right" if number in aligned else "left"
            self.add_column(heading, justify=justify, no_wrap=number in aligned or number == 0)  # type: ignore[arg-type]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Set the widths for the console, and render as rich does."""
        least, most = [_least(each) for each in self.columns], [_most(each) for each in self.columns]
        between = len(self.columns) - 1
        gap = next((each for each in GAPS if sum(least) + each * between <= options.max_width), GAPS[-1])
        widths = share_room(least, most, options.max_width - gap * between)
        self.padding = (0, gap, 0, 0)
        for column, width in zip(self.columns, widths, strict=True):
            column.width = width
        yield from super().__rich_console__(console, options.update(width=sum(widths) + gap * between))


def share_room(least: Sequence[int], most: Sequence[int], room: int) -> list[int]:
    """The width of each column between its least and its most, which are in `room` where the least ones are.

    Columns that want less are served first, so that what they leave goes to those that want more.
    """
    widths, left = list(least), max(0, room - sum(least))
    wanting = sorted(range(len(widths)), key=lambda number: most[number] - least[number])
    for place, number in enumerate(wanting):
        more = min(most[number] - least[number], left // (len(wanting) - place))
        widths[number] += more
        left -= more
    return widths


def _lines(column: Column) -> list[str]:
    """The lines of the heading and the cells, as they are without a break for the width."""
    cells = [column.header, *column.cells]
    return [line for cell in cells for line in (cell.plain if isinstance(cell, Text) else str(cell)).split("\n")]


def _most(column: Column) -> int:
    """The width of the longest line of a column."""
    return max(map(cell_len, _lines(column)))


def _least(column: Column) -> int:
    """The least width at which no word of a column is broken."""
    if column.no_wrap:
        return _most(column)
    return max((cell_len(word) for line in _lines(column) for word in line.split()), default=0)
