"""The progress of work in named phases, each with its share and all with the time that is left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text
from slimnet_cli.output import terminal

FIRST_LINE = 2.0
"""Work that takes longer than so many seconds is reported, in a file as well."""
LEAST_KNOWN = 0.125
"""The share of the work that has to be done before the time of the rest is estimated from it, by weights.

The first phase is short, and its time is mostly that of imports: it says nothing of phases of many times its weight.
"""
REFRESHES_A_SECOND = 4.0
"""Few, because what is measured meanwhile is disturbed by each."""


@dataclass(frozen=True)
class Phase:
    """A phase of work: its name, and how long it takes.

    `seconds` is None where it is not known; then it takes in proportion to its `weight` as long as others of which it
    was not known.
    """

    name: str
    seconds: float | None = None
    weight: float = 1.0


class TimeLeft:
    """The time that is left of phases, from those that are done and the share of the current one."""

    def __init__(self, phases: Sequence[Phase], clock: Callable[[], float]) -> None:
        self.phases = phases
        self.number, self.share = 0, 0.0
        self._clock = clock
        self._start = self._began = clock()
        self._took: dict[int, float] = {}

    def at(self, number: int, share: float = 0.0) -> None:
        """Note how much of a phase is done; those before it are done as a whole."""
        now = self._clock()
        if number != self.number:
            self._took[self.number] = now - self._began
            self.number, self._began = number, now
        self.share = min(1.0, max(0.0, share))

    @property
    def left(self) -> float | None:
        """The seconds that are left; None if too little is known yet, or if a phase takes longer than expected."""
        pace = self._pace()
        rest = [self._expected(number, pace) for number in range(self.number + 1, len(self.phases))]
        expected = [self._left_of_current(pace), *rest]
        known = [each for each in expected if each is not None]
        return sum(known) if len(known) == len(expected) else None

    def _left_of_current(self, pace: float | None) -> float | None:
        """The seconds that are left of the current phase, by its share, or by how long it was expected to take."""
        passed = self._clock() - self._began
        if self.share:
            return passed / self.share - passed
        expected = self._expected(self.number, pace)
        if expected is None:
            return None
        if passed > expected and self.phases[self.number].seconds is None:
            return None
        return max(0.0, expected - passed)

    @property
    def done(self) -> float | None:
        """The share of all phases that is done, 0..1; None if that cannot be said yet."""
        passed, left = self._clock() - self._start, self.left
        return None if left is None else passed / (passed + left) if passed + left else 0.0

    @property
    def is_at_the_end(self) -> bool:
        """Whether all of the last phase is done."""
        return self.number == len(self.phases) - 1 and self.share == 1.0

    def _expected(self, number: int, pace: float | None) -> float | None:
        phase = self.phases[number]
        if phase.seconds is not None:
            return phase.seconds
        return None if pace is None else pace * phase.weight

    def _pace(self) -> float | None:
        """The seconds for a weight of one, by phases whose time nobody knew before; None if too little is done."""
        took = self._took | ({self.number: self._clock() - self._began} if self.share else {})
        seconds = weight = whole = 0.0
        for number, phase in enumerate(self.phases):
            if phase.seconds is None:
                whole += phase.weight
                if number in took:
                    seconds += took[number]
                    weight += phase.weight * (self.share if number == self.number else 1.0)
        return seconds / weight if weight and weight >= LEAST_KNOWN * whole else None


class PhaseProgress:
    """What shows the progress of phases; `show` is called with a note each time that something changes."""

    def __init__(self, time_left: TimeLeft, show: Callable[[str], None]) -> None:
        self._time_left, self._show = time_left, show

    def at(self, number: int, share: float = 0.0, note: str = "") -> None:
        """Show that so much of a phase is done, and a short status."""
        self._time_left.at(number, share)
        self._show(note)

    def begin(self, name: str) -> None:
        """Show that a phase begins; a name that is none of the phases is a status of the current one."""
        names = [phase.name for phase in self._time_left.phases]
        if name not in names:
            self.say(name)
        elif names.index(name) != self._time_left.number:
            self.at(names.index(name))
        else:
            self.say("")

    def say(self, note: str) -> None:
        """Show a short status of the current phase."""
        self._show(note)

    def step(self, _: int, __: int, doing: str) -> None:
        """A progress callback of the library's steps: each is a phase, whose batches are counted elsewhere."""
        name, batch, _number = doing.partition(", batch ")
        if not batch:
            self.begin(name)

    def counting(self, name: str, what: str = "", unit: str = "images") -> Callable[[int, int], None]:
        """A progress callback of a phase: "512 of 10,000 images", or "fitting weights: 12 of 55 layers"."""
        number = [phase.name for phase in self._time_left.phases].index(name)
        return lambda done, total: self.at(number, done / max(1, total), counted(done, total, what, unit))

    def telling(self, what: str, unit: str) -> Callable[[int, int], None]:
        """A progress callback of a part of the current phase that says nothing of the rest of it."""
        return lambda done, total: self.say(counted(done, total, what, unit))

    def trying(self, done: int, total: int, name: str) -> None:
        """A progress callback of the current phase: "candidate 2 of 6: multiples of 4".

        The candidates are measured when all are ready, which takes about as long again.
        """
        self.at(self._time_left.number, done / total / 2, f"candidate {done} of {total}: {name}")


def counted(done: int, total: int, what: str, unit: str) -> str:
    """How many are done: "fitting weights: 12 of 55 layers", or without `what` the number alone."""
    number = f"{done:,} of {total:,} {unit}"
    return f"{what}: {number}" if what else number


@contextlib.contextmanager
def progress_of(what: str, phases: Sequence[Phase]) -> Iterator[PhaseProgress]:
    """Show the progress of phases: in a terminal as a bar with the phase below it, otherwise in lines on stderr.

    The first line comes after two seconds, one of a new phase two seconds after another, one of the same phase ten, and
    later less often.
    """
    console, time_left = terminal.notes(), TimeLeft(phases, time.monotonic)
    with terminal.quiet_libraries():
        if console.is_terminal:
            with _display(console, what, time_left) as show:
                yield PhaseProgress(time_left, show)
        else:
            yield PhaseProgress(time_left, _lines(lambda words: console.print(words, soft_wrap=True), what, time_left))


def _lines(say: terminal.Say, what: str, time_left: TimeLeft) -> Callable[[str], None]:
    """A function that says the state in a line, if enough time has passed since the last one."""
    begin = last = time.monotonic()
    phase: int | None = None

    def show(note: str) -> None:
        nonlocal last, phase
        now = time.monotonic()
        again = terminal.SECONDS_BETWEEN_LINES * terminal.more_seldom(now - begin)
        if now - last >= (again if phase == time_left.number else FIRST_LINE):
            last, phase = now, time_left.number
            say(line(what, time_left, note))

    return show


def line(what: str, time_left: TimeLeft, note: str = "") -> str:
    """The state in one line: "Measuring: 3/8, 42 %, 3 min left, accuracy of dense by torch 12 %"."""
    number = f"{what}: {time_left.number + 1}/{len(time_left.phases)}"
    return ", ".join([number, *_figures(time_left), *_current(time_left, note)])


def _figures(time_left: TimeLeft) -> list[str]:
    """The share of all phases and the time left, if they are known; there is none left only at the very end."""
    from slimnet.durations import in_two_units

    done, left = time_left.done, time_left.left
    if done is None or left is None:
        return []
    if time_left.is_at_the_end:
        return ["100 %"]
    return [f"{min(99, round(100 * done))} %", *([f"{in_two_units(left)} left"] if round(left) else [])]


def _current(time_left: TimeLeft, note: str) -> list[str]:
    """The current phase, its share, and its status, which says the share as well if it counts."""
    name, share = time_left.phases[time_left.number].name, time_left.share
    return [f"{name} {100 * share:.0f} %" if share else name, *([note] if note else [])]


@contextlib.contextmanager
def _display(console: Console, what: str, time_left: TimeLeft) -> Iterator[Callable[[str], None]]:
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}", markup=False),
        console=console,
        transient=True,
    )
    task = bar.add_task(what, total=1.0, figures="")
    with Live(bar, console=console, transient=True, refresh_per_second=REFRESHES_A_SECOND) as live:

        def show(note: str) -> None:
            number = f"{time_left.number + 1}/{len(time_left.phases)}"
            figures = ", ".join(_figures(time_left))
            bar.update(task, description=f"{what} {number}", completed=time_left.done or 0.0, figures=figures)
            status = terminal.in_lines(", ".join(_current(time_left, note)), console.width)
            live.update(Group(bar, Text(status, style="dim")))

        yield show
