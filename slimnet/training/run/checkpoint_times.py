"""When the checkpoints of a run are due: after a number of iterations, or after a time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from slimnet.errors import UsageError

SHARE = 0.02
"""The fraction of the training time that checkpoints at time intervals may take."""


@dataclass(frozen=True)
class Interval:
    """The interval of checkpoints: a number of `iterations` (at the next report), or a time.

    The time is `seconds`, or longer if writing a checkpoint takes long.

    Raises:
        UsageError: `iterations` is below 1.
    """

    iterations: int | None = None
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 1:
            raise UsageError(f"a checkpoint every {self.iterations} iterations cannot be; it must be at least 1")


class CheckpointTimes:
    """Says when the next checkpoint is due.

    Attributes:
        saved: the iteration of the last checkpoint; −1 if there is none.
    """

    def __init__(self, interval: Interval, saved: int) -> None:
        self.saved = saved
        self._interval = interval
        self._saved_at, self._cost = time.monotonic(), 0.0

    def due(self, iteration: int) -> bool:
        """Whether one is due at this iteration."""
        every = self._interval.iterations
        if every is not None:
            return iteration // every > max(0, self.saved) // every
        return time.monotonic() - self._saved_at >= max(self._interval.seconds, self._cost / SHARE)

    @contextmanager
    def saving(self, iteration: int) -> Iterator[None]:
        """Measure the time of writing the checkpoint of an iteration, which counts as saved if the context succeeds."""
        start = time.monotonic()
        yield
        self.saved, self._saved_at = iteration, time.monotonic()
        self._cost = self._saved_at - start
