"""The progress of a training run in a terminal, and stop requests."""

from __future__ import annotations

import os
import signal
import statistics
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from slimnet_cli.output import terminal
from slimnet_cli.progress.signals import caught, on_signals

if TYPE_CHECKING:
    from types import FrameType

    from slimnet.training import Progress, TrainingRun
    from slimnet.training.run.resumable_run import KeptRun

STEPS_BETWEEN_REPORTS = 20
PATIENCE = 10.0
"""Seconds after which an early report is made at the end of the current step: twenty steps of a large network can take
minutes, and a file gets a line every ten seconds."""

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


INTERVALS = 10
"""The number of intervals between reports over which the median time of a step is taken; a single one is noisy."""


class StepTime:
    """The current time of a step and that at the start of the run; `earlier` are the first reports of a resumed run."""

    def __init__(self, earlier: Iterable[Progress] = ()) -> None:
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=INTERVALS)
        self._last: Progress | None = None
        for progress in earlier:
            self.add(progress)
        self._recent.clear()
        # The time between the first reports of a resumed run and the next report is no interval.
        self._last = None

    def add(self, progress: Progress) -> None:
        """Count a report."""
        last, self._last = self._last, progress
        if last is None or progress.iteration <= last.iteration:
            return
        milliseconds = 1e3 * (progress.seconds - last.seconds) / (progress.iteration - last.iteration)
        self._recent.append(milliseconds)
        if len(self._first) < INTERVALS:
            self._first.append(milliseconds)

    def __str__(self) -> str:
        if not self._recent:
            return ""
        now, first = statistics.median(self._recent), statistics.median(self._first)
        return f", {now:.3g} ms a step ({first:.3g} at first)"


def watch(
    run: TrainingRun | KeptRun,
    listeners: Sequence[Callable[[Progress], None]] = (),
    earlier: Iterable[Progress] = (),
) -> None:
    """Train to the end, or until a stop request, and show progress; `earlier` are a resumed run's first reports."""
    macs, validated, steps = "", "", StepTime(earlier)
    with terminal.progress("Training", run.recipe.iterations) as advance:
        for progress in run:
            steps.add(progress)
            macs = share_of_macs(progress) or macs
            validated = validation_in_words(progress) or validated
            pace = "" if progress.macs_left is None else str(steps)
            advance(progress.iteration, f"{described(progress)}{validated}{pace}{macs}")
            for listen in listeners:
                listen(progress)


def described(progress: Progress) -> str:
    """The state of a run in words."""
    removed = ""
    if progress.macs and progress.macs_left is not None:
        share = 100 * progress.macs_left / progress.macs
        removed = f", {progress.channels_removed} channels removed, {share:.0f} % of the MACs left"
        if progress.revived is not None:
            removed += f", {progress.revived} came back in the dense run"
        if progress.revived and progress.revived_alive is not None:
            removed += f" ({progress.revived_alive} alive)"
    return (
        f"epoch {progress.epoch:.1f}, loss {progress.loss:.3f}, accuracy {100 * progress.accuracy:.0f} %, "
        f"{100 * progress.sparsity:.0f} % of the filters dead{removed}"
    )


def validation_in_words(progress: Progress) -> str:
    """The accuracy at an evaluation, and the best one so far; empty for other reports."""
    if progress.validation_accuracy is None or progress.validation_best is None:
        return ""
    now, best = 100 * progress.validation_accuracy, 100 * progress.validation_best
    return f", validation {now:.1f} % (best {best:.1f} %)"


def share_of_macs(progress: Progress) -> str:
    """The share of the MACs that would remain after slimming now, if it is known."""
    if progress.macs is None or progress.macs_if_slimmed is None:
        return ""
    return f", {100 * progress.macs_if_slimmed / max(1, progress.macs):.0f} % of the MACs if slimmed now"


@contextmanager
def stop_on_interrupt(stop: Callable[[], None], *, patient: bool = False) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and a closed terminal into a stop request; a second one ends the program.

    Where it is `patient` a second one changes nothing: torchrun sends some of its own when it is interrupted. Nor does
    one that comes after a failure, since torchrun also sends one when another process has ended, and may do so before
    this one has reported it.
    """
    before = {number: signal.getsignal(number) for number in caught(STOPPING)}

    def restored() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(_: int, __: FrameType | None) -> None:
        stop()
        if not patient:
            restored()

    on_signals(STOPPING, request)
    try:
        yield
    except BaseException:
        if not patient:
            restored()
        raise
    restored()


def leave_when_input_ends(_: click.Context, __: click.Parameter, wanted: bool) -> None:
    """Terminate this process once its standard input ends: a pipe from the parent ends when the parent does."""

    def wait() -> None:
        while os.read(stdin, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    if wanted:
        stdin = sys.stdin.fileno()
        threading.Thread(target=wait, name="slimnet-lifeline", daemon=True).start()


until_input_ends_option = click.option(
    "--until-input-ends",
    is_flag=True,
    hidden=True,
    expose_value=False,
    callback=leave_when_input_ends,
    help="Save and exit when standard input ends; for programs that start this one.",
)
