"""Signals that end a program: half-written files are removed first, and one line reports the signal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""The signals of a request to end, and of a closed terminal."""

BY_SIGNAL = 128
"""The exit code of a program ended by a signal, minus the signal's number."""


class Terminated(BaseException):
    """A signal asked this program to end. Not an `Exception`, so that it is not handled as a failure of the work."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"ended by {self.signal.name}; nothing half-written was left behind")

    @property
    def exit_code(self) -> int:
        """The exit code of the command line."""
        return BY_SIGNAL + self.signal


def end_on_signals() -> None:
    """Raise `Terminated` when a signal asks this process to end; a second signal ends it at once."""
    process = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        for each in caught(ENDING):
            signal.signal(each, signal.SIG_DFL)
        if os.getpid() != process:
            # A forked child has nothing to clean up, and its parent waits for its end.
            os.kill(os.getpid(), number)
        raise Terminated(number)

    on_signals(ENDING, end)


def on_signals(numbers: Sequence[signal.Signals], do: Callable[[int, FrameType | None], None]) -> None:
    """Call `do` for these signals. One that was ignored when this process began, as under nohup, stays ignored."""
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            # The terminal is closed: writing to it must not fail.
            for each in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), each)
        do(number, frame)

    for number in caught(numbers):
        signal.signal(number, handle)


def caught(numbers: Sequence[signal.Signals]) -> list[signal.Signals]:
    """The signals to handle: all except a hang-up that is ignored, as under nohup."""
    return [each for each in numbers if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]
