"""What removing dead channels during a training saved: operations, and the time of a step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slimnet.training.loop.progress import Progress

PACES = 100
"""How many times of a step are made of the reports of a run."""


@dataclass(frozen=True)
class Savings:
    """What was removed during a run up to its last report, and what a dense run beside it shows.

    `macs` are those of the network that it began with. `first_ms` and `last_ms` are the time of a step in the first and
    in the last tenth of the run; None where too few reports say so. `revived` of the removed channels came back in the
    dense run, and `revived_alive` of these were alive at the last report; None where there was none.
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
        """What the reports of a run say; None where nothing has been removed."""
        last = progress[-1] if progress else None
        if last is None or last.macs is None or last.macs_left is None:
            return None
        first_ms, last_ms = first_and_last(step_times(progress)[1])
        removed, back, alive = last.channels_removed or 0, last.revived, last.revived_alive
        return cls(removed, last.macs, last.macs_left, first_ms, last_ms, back, alive)


def step_times(progress: Sequence[Progress]) -> tuple[np.ndarray, np.ndarray]:
    """How long a step took, in milliseconds, `(P,)`, and the iterations where that was measured.

    Each is the mean over the reports of a hundredth of the run.
    """
    known = [each for each in progress if each.seconds > 0]
    chosen = known[:: max(1, math.ceil(len(known) / PACES))]
    iterations = np.asarray([each.iteration for each in chosen], dtype=np.float64)
    seconds = np.asarray([each.seconds for each in chosen])
    # A run that was interrupted by force may have reported some iterations twice.
    forward = np.flatnonzero(np.diff(iterations) > 0)
    return iterations[forward + 1], 1e3 * np.diff(seconds)[forward] / np.diff(iterations)[forward]


def first_and_last(milliseconds: np.ndarray) -> tuple[float | None, float | None]:
    """The medians of the first and of the last tenth of some times; None where there are fewer than two."""
    if milliseconds.size < 2:
        return None, None
    tenth = max(1, milliseconds.size // 10)
    return float(np.median(milliseconds[:tenth])), float(np.median(milliseconds[-tenth:]))
