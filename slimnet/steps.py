"""What long work reports as it goes: its steps to a callback of the caller, and their times to the logger `slimnet`.

The logger has no handler of its own and writes nothing unless a program asks for it. INFO are results (a network was
slimmed, a bundle written), DEBUG the steps of each with their seconds. What fails is raised, not logged.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from slimnet.printable import message

LOG = logging.getLogger("slimnet")

StepCallback = Callable[[int, int, str], None]
"""Called with the number of finished steps, their total, and what is done now; an exception in it ends the work."""


@dataclass(frozen=True)
class Steps:
    """The steps of one piece of work, and the callback that follows them."""

    total: int
    progress: StepCallback | None = None

    @contextmanager
    def step(self, finished: int, doing: str) -> Iterator[None]:
        """Report a step at its beginning and its end, with the number of steps that are finished before it."""
        self.report(finished, doing)
        began = time.perf_counter()
        yield
        LOG.debug("%s: %.3f s", doing, time.perf_counter() - began)
        self.report(finished + 1, doing)

    def report(self, finished: int, doing: str) -> None:
        """Call the callback, if there is one."""
        if self.progress is not None:
            self.progress(finished, self.total, doing)

    def counted(self, batches: Iterable[Any], finished: int, doing: str) -> Iterable[Any]:
        """The batches of a loader; each one that is taken is reported within a step."""
        return _Counted(batches, lambda count: self.report(finished, f"{doing}, batch {count:,}"))


class _Counted:
    """A loader that says how many of its batches were taken, from 1 each time that it is gone through."""

    def __init__(self, batches: Iterable[Any], count: Callable[[int], None]) -> None:
        self._batches, self._count = batches, count

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self._batches, 1):
            self._count(number)
            yield batch


def log_result(result: object) -> None:
    """Log a result as one printable line."""
    if LOG.isEnabledFor(logging.INFO):
        LOG.info("%s", message(str(result)))
