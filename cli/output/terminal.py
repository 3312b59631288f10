"""What people and machines see: results on stdout, everything else on stderr."""

import contextlib
import errno
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import click
from rich.console import Console, ConsoleOptions, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 120
SECONDS_BETWEEN_LINES = 10.0
SELDOM = 200.0, 30.0
"""After so many seconds lines come ever more seldom, the time between them growing with the time gone; to so many times
the ten seconds, at most. A run of two days is some five hundred lines in a file."""

Advance = Callable[[int, str], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class ProgressBoard:
    """What stands on the screen while several things are at work.

    `show` takes how many are done and a line for each that is at work, `say` a line that is to stay.
    """

    show: Callable[[int, Sequence[str]], None]
    say: Say


class Notes:
    """Standard error, to which writing does not fail once its terminal is closed, so that the work is still saved."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text; returns its length."""
        with _closed_terminal():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what was held back."""
        with _closed_terminal():
            self._stream.flush()


@contextlib.contextmanager
def _closed_terminal() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise


class PrintableConsole(Console):
    """A console that shows as escapes what would act on the terminal: names may come from any file."""

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Everything that is shown comes through here, what rich itself asks of the terminal marked as control."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else shown(text), style, control)


def shown(text: str) -> str:
    """Text as it may go to a terminal, in lines."""
    if text.replace("\n", "").isprintable():
        return text
    # Importing the library takes seconds, which a mere message does not wait for.
    from slimnet.printable import printable

    return printable(text, kept="\n")


def result() -> Console:
    """The console for results; names in them are never read as markup."""
    return _console(sys.stdout)


def notes() -> Console:
    """The console for everything else: progress, notes, errors. A terminal that was closed is written to in vain."""
    return _console(Notes(sys.stderr))


def _console(stream: Any) -> Console:
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return PrintableConsole(file=stream, width=width, markup=False, highlight=False, emoji=False)


def emit(document: Any) -> None:
    """Write a result for machines: one JSON document, strictly, on stdout."""
    click.echo(json.dumps(document, indent=2, allow_nan=False, default=str))


def failed(message: str, exit_code: int = 1) -> int:
    """Say in one line what went wrong; returns the exit code."""
    notes().print(Text("error: ", style="bold red") + Text(" ".join(message.split())), soft_wrap=True)
    return exit_code


def misused(error: click.ClickException) -> int:
    """Say what was wrong with the command as it was typed; returns 2 for misuse, 1 otherwise."""
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" (see '{error.ctx.command_path} --help')"
    return failed(error.format_message() + hint, error.exit_code)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what other libraries print and warn about out of our results."""
    logging.getLogger("torch").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def working(what: str) -> Iterator[Say]:
    """Show that something is being done; what libraries print goes to stderr.

    Call what is yielded with a few words on how it stands: they follow `what`, in a terminal at once, else every
    ten seconds and later ever more seldom.
    """
    console = notes()
    with quiet_libraries():
        if console.is_terminal:
            # As `Text`: rich reads markup out of a mere string.
            with console.status(Text(f"{what} …")) as status:
                yield lambda words: status.update(Text(f"{what} … {words}"))
        else:
            yield _seldom(lambda words: console.print(f"{what}: {words}", soft_wrap=True))


def counting(say: Say, what: str) -> Callable[[int, int], None]:
    """Something to be told how many are done, of how many, which says it as "certificate: 512 of 10,000 images"."""
    return lambda done, total: say(f"{what}: {done:,} of {total:,} images")


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """Show how far something is: a bar in a terminal, else a line every ten seconds, and later ever more seldom.

    Call what is yielded with the number that is done and a few words on how it stands.
    """
    console = notes()
    with quiet_libraries():
        if console.is_terminal:
            with _bar(console) as bar:
                task = bar.add_task(what, total=total, note="")
                yield lambda done, note: bar.update(task, completed=done, note=note)
        else:
            say = _seldom(lambda words: console.print(words, soft_wrap=True))
            yield lambda done, note: say(f"{what}: {done}/{total}  {note}")


@contextlib.contextmanager
def board(what: str, total: int) -> Iterator[ProgressBoard]:
    """Show how many things are done and what is at work, in a terminal at once, else in lines as `progress` does."""
    console = notes()
    with quiet_libraries():
        if console.is_terminal:
            bar = _bar(console)
            task = bar.add_task(what, total=total, note="")
            with Live(bar, console=console, transient=True) as live:

                def show(done: int, lines: Sequence[str]) -> None:
                    bar.update(task, completed=done)
                    live.update(Group(bar, *(Text(line, style="dim") for line in lines)))

                yield ProgressBoard(show, lambda line: console.print(line, soft_wrap=True))
        else:
            seldom = _seldom(lambda words: console.print(words, soft_wrap=True))
            yield ProgressBoard(
                lambda _, lines: seldom("\n".join(lines)) if lines else None,
                lambda line: console.print(line, soft_wrap=True),
            )


def _bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    )


def _seldom(say: Say) -> Say:
    """Say only what comes ten seconds or more after what was said last; ever more seldom in the course of hours."""
    begin = last = time.monotonic()

    def say_seldom(words: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES * more_seldom(now - begin):
            last = now
            say(words)

    return say_seldom


def more_seldom(seconds: float) -> float:
    """How many times longer than at first it is from one line to the next, after so many seconds."""
    after, most = SELDOM
    return min(most, max(1.0, seconds / after))


def note(message: str) -> None:
    """Say something on stderr that is no result."""
    notes().print(message, style="dim", soft_wrap=True)


def table(headings: Iterable[str], rows: Iterable[Iterable[str | Text]], right: Iterable[int] = ()) -> Table:
    """A table without boxes; columns whose number is in `right` are aligned to the right, names are never broken."""
    aligned, headings = set(right), list(headings)
    grid = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0), show_header=any(headings))
    for number, heading in enumerate(headings):
        grid.add_column(
            heading,
            justify="right" if number in aligned else "left",
            overflow="fold",
            no_wrap=number in aligned or number == 0,
        )
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return grid
