"""What people and machines see: results on stdout, everything else on stderr."""

import contextlib
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 120
SECONDS_BETWEEN_LINES = 10.0

Advance = Callable[[int, str], None]
Say = Callable[[str], None]


def result() -> Console:
    """The console for results; names in them are never read as markup."""
    return _console(sys.stdout)


def notes() -> Console:
    """The console for everything else: progress, notes, errors."""
    return _console(sys.stderr)


def _console(stream: Any) -> Console:
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


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
    ten seconds.
    """
    console = notes()
    with quiet_libraries():
        if console.is_terminal:
            with console.status(f"{what} …") as status:
                yield lambda words: status.update(f"{what} … {words}")
        else:
            yield _seldom(lambda words: console.print(f"{what}: {words}", soft_wrap=True))


def counting(say: Say, what: str) -> Callable[[int, int], None]:
    """Something to be told how many are done, of how many, which says it as "certificate: 512 of 10,000 images"."""
    return lambda done, total: say(f"{what}: {done:,} of {total:,} images")


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """Show how far something is: a bar in a terminal, else a line every ten seconds.

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


def _bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[note]}", style="dim"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    )


def _seldom(say: Say) -> Say:
    """Say only what comes ten seconds or more after what was said last."""
    last = time.monotonic()

    def say_seldom(words: str) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(words)

    return say_seldom


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
