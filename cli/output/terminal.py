"""Terminal output: results on stdout, everything else on stderr."""

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
from rich.text import Text
from slimnet_cli.output.grid import Grid

PIPED_WIDTH = 120
SECONDS_BETWEEN_LINES = 10.0
SELDOM = 200.0, 30.0
"""Log lines back off after this many seconds, their interval growing with the elapsed time, up to this many times ten
seconds. A run of two days gives about five hundred lines in a file."""

Advance = Callable[[int, str], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class ProgressBoard:
    """The display of several concurrent jobs.

    `show` takes the number of finished jobs and a line for each current one, `say` a permanent line.
    """

    show: Callable[[int, Sequence[str]], None]
    say: Say


class Notes:
    """Standard error, to which writing does not fail after its terminal was closed, so that the work is still saved."""

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
        """Write buffered output."""
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
    """A console that escapes control characters, since names may come from any file, and breaks no text in a file."""

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        """Print; text that goes to no terminal stays in one line, since programs read it by lines.

        A table that is too wide is not cropped: its lines are longer than those of the terminal.
        """
        if any(isinstance(each, Grid) for each in objects):
            options.setdefault("crop", False)
        if soft_wrap is None:
            soft_wrap = not self.is_terminal and all(isinstance(each, str | Text) for each in objects)
        super().print(*objects, soft_wrap=soft_wrap, **options)

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """All output passes through here; rich's own control codes are marked as such."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else shown(text), style, control)


def shown(text: str) -> str:
    """Text with control characters escaped, in lines."""
    if text.replace("\n", "").isprintable():
        return text
    # Importing the library takes seconds, for which a message should not wait.
    from slimnet.printable import printable

    return printable(text, kept="\n")


def result() -> Console:
    """The console for results; names in them are never interpreted as markup."""
    return _console(sys.stdout)


def notes() -> Console:
    """The console for progress, notes and errors. Writing to a closed terminal has no effect."""
    return _console(Notes(sys.stderr))


def _console(stream: Any) -> Console:
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    styled = has_styles(stream)
    return PrintableConsole(file=stream, width=width, force_terminal=styled, markup=False, highlight=False, emoji=False)


def has_styles(stream: Any) -> bool:
    """Whether escape sequences (styles, bars that are redrawn) may be written to a stream.

    To terminals only, whatever FORCE_COLOR says: what is piped is read by programs. NO_COLOR, if it has a value, and
    TERM=dumb give plain lines on a terminal as well, as screen readers and logs need them.
    """
    return bool(stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


def emit(document: Any) -> None:
    """Write a result as one strict JSON document on stdout."""
    click.echo(json.dumps(document, indent=2, allow_nan=False, default=str))


def failed(message: str, exit_code: int = 1) -> int:
    """Print an error in one line; returns the exit code."""
    notes().print(Text("error: ", style="bold red") + Text(" ".join(message.split())), soft_wrap=True)
    return exit_code


def misused(error: click.ClickException) -> int:
    """Print a usage error; returns 2 for misuse, 1 otherwise."""
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" (see '{error.ctx.command_path} --help')"
    return failed(error.format_message() + hint, error.exit_code)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the output and warnings of other libraries out of the results."""
    logging.getLogger("torch").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def working(what: str) -> Iterator[Say]:
    """Show that work is in progress; the output of libraries goes to stderr.

    Call the yielded function with a short status: it follows `what`, in a terminal at once, else every
    ten seconds and later less often.
    """
    console = notes()
    with quiet_libraries():
        if console.is_terminal:
            # As `Text`, since rich interprets markup in a plain string.
            with console.status(Text(f"{what} …")) as status:
                yield lambda words: status.update(Text(f"{what} … {words}"))
        else:
            yield _seldom(lambda words: console.print(f"{what}: {words}", soft_wrap=True))


def counting(say: Say, what: str) -> Callable[[int, int], None]:
    """A progress callback that prints "certificate: 512 of 10,000 images"."""
    return lambda done, total: say(f"{what}: {done:,} of {total:,} images")


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """Show progress: in a terminal a bar with the status below it, otherwise lines, which back off from ten seconds.

    Call the yielded function with the number of finished steps and a short status: figures, with commas between them.
    How much is done and the time left come first, so that a narrow terminal shows them whatever the status is.
    """
    console = notes()
    with quiet_libraries():
        if console.is_terminal:
            bar = _bar(console)
            task = bar.add_task(what, total=total)
            with Live(bar, console=console, transient=True) as live:

                def advance(done: int, note: str) -> None:
                    bar.update(task, completed=done)
                    # Below the bar, because next to it a narrow terminal would truncate the status.
                    live.update(Group(bar, Text(in_lines(note, console.width), style="dim")) if note else bar)

                yield advance
        else:
            say, pace = _seldom(lambda words: console.print(words, soft_wrap=True)), Pace(total)
            yield lambda done, note: say(", ".join(filter(None, (f"{what}: {done}/{total}", pace.left(done), note))))


@contextlib.contextmanager
def board(what: str, total: int) -> Iterator[ProgressBoard]:
    """Show the number of finished jobs and the current ones: in a terminal as a live display, otherwise in lines."""
    console = notes()
    with quiet_libraries():
        if console.is_terminal:
            bar = _bar(console)
            task = bar.add_task(what, total=total)
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


def in_lines(status: str, width: int) -> str:
    """A status in lines of at most `width` columns; a figure stays in one line with its words where it fits."""
    lines = [""]
    for figure in status.split(", "):
        joined = f"{lines[-1]}, {figure}" if lines[-1] else figure
        # Room for the comma behind it.
        if len(joined) < width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(figure)
    return ",\n".join(lines)


class Pace:
    """The time that is left of a work of `total` steps, at the pace since the first look at it."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._first: tuple[int, float] | None = None

    def left(self, done: int) -> str:
        """The time left in words; empty at the first look and at the end."""
        from slimnet.durations import in_two_units

        now = time.monotonic()
        first, began = self._first = self._first or (done, now)
        if done <= first or done >= self._total:
            return ""
        seconds = (now - began) / (done - first) * (self._total - done)
        return f"{in_two_units(seconds, smallest=60)} left" if round(seconds / 60) else "under a minute left"


def _bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.completed}/{task.total}"),
        BarColumn(bar_width=28),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    )


def _seldom(say: Say) -> Say:
    """Print a line only if at least ten seconds have passed since the last one; the interval backs off over hours."""
    begin = last = time.monotonic()

    def say_seldom(words: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES * more_seldom(now - begin):
            last = now
            say(words)

    return say_seldom


def more_seldom(seconds: float) -> float:
    """The factor on the interval between lines after this many seconds."""
    after, most = SELDOM
    return min(most, max(1.0, seconds / after))


def note(message: str) -> None:
    """Print a note on stderr."""
    notes().print(message, style="dim", soft_wrap=True)


def table(headings: Iterable[str], rows: Iterable[Iterable[str | Text]], right: Iterable[int] = ()) -> Grid:
    """A table without boxes; columns whose number is in `right` are aligned to the right, no word is ever broken."""
    grid = Grid([shown(heading) for heading in headings], right)
    for row in rows:
        grid.add_row(*map(_cell, row))
    return grid


def _cell(content: str | Text) -> Text:
    """A cell of a table, whose control characters are escaped here already, since that makes it wider."""
    text = content if isinstance(content, Text) else Text(content)
    return text if shown(text.plain) == text.plain else Text(shown(text.plain), style=text.style)
