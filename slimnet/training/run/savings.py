"""The savings by removing dead channels during training: MACs, and the time of a step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimnet.training.loop.progress import Progress

PACES = 100
"""The number of intervals of a run over which the time of a step is averaged."""


@dataclass(frozen=True)
class Savings:
    """The savings of a run up to its last report, and the removed channels that came back in its shadow.

    `macs` are those of the initial network. `first_ms` and `last_ms` are the time of a step in the first and in the
    last tenth of the run; None if there are too few reports. `revived` counts the removed channels that came back in
    the shadow, `revived_alive` those that were alive there at the last report; None without a shadow.
    """

    channels_removed: int
    macs: int
    macs_left: int
    first_ms: float | None
    last_ms: float | None
    revived: int | None = None
    revived_alive: int | None = None

    @classmethod
    def of(cls, progress: Sequence[Progress]) -> "Savings | None":
        """The savings by the reports of a run; None if nothing has been removed."""
        last = progress[-1] if progress else None
        if last is None or last.macs is None or last.macs_left is None:
            return None
        first_ms, last_ms = first_and_last(step_times(progress)[1])
        removed, back, alive = last.channels_removed or 0, last.revived, last.revived_alive
        return cls(removed, last.macs, last.macs_left, first_ms, last_ms, back, alive)


def step_times(progress: Sequence[Progress]) -> tuple[np.ndarray, np.ndarray]:
    """The time of a step in milliseconds, `(P,)`, and the iterations at which it was measured.

    Each is the mean over the reports of one interval of the run.
    """
    known = [each for each in progress if each.seconds > 0]
    chosen = known[:: max(1, math.ceil(len(known) / PACES))]
    iterations = np.asarray([each.iteration for each in chosen], dtype=np.float64)
    seconds = np.asarray([each.seconds for each in chosen])
    # A run that was killed may have reported some iterations twice.
    forward = np.flatnonzero(np.diff(iterations) > 0)
    return iterations[forward + 1], 1e3 * np.diff(seconds)[forward] / np.diff(iterations)[forward]


def first_and_last(milliseconds: np.ndarray) -> tuple[float | None, float | None]:
    """The medians of the first and of the last tenth of the times; None if there are fewer than two."""
    if milliseconds.size < 2:
        return None, None
    tenth = max(1, milliseconds.size // 10)
    return float(np.median(milliseconds[:tenth])), float(np.median(milliseconds[-tenth:]))
