"""The status of a run that another process trains, read from its folder."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from slimnet.errors import UsageError
from slimnet.storage.files import open_file
from slimnet.training.loop.progress import Progress
from slimnet.training.run.checkpoints import reached
from slimnet.training.run.run_folder import CHECKPOINTS, METRICS, report_in

TAIL = 8192
"""Bytes read from the end of the metrics: about thirty reports, from which the remaining time is estimated."""

Stamp = tuple[int, int, int]
"""The identity, the length and the time of a file."""


@dataclass(frozen=True)
class RunStatus:
    """The newest report of a run, and the estimated remaining seconds."""

    progress: Progress
    seconds_left: float


def status_of(folder: Path) -> RunStatus | None:
    """The status of the run in a folder; None if it has not reported yet."""
    try:
        with open_file(folder / METRICS) as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - TAIL))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return None
    newest = []
    for line in text.splitlines():
        # The first line may lack its beginning, and the last may not be complete yet.
        with contextlib.suppress(UsageError):
            newest.append(report_in(line))
    return RunStatus(newest[-1], seconds_left(newest)) if newest else None


def seconds_left(newest: list[Progress]) -> float:
    """The remaining seconds of a run after these reports, at their mean pace; for a single one at that of the run."""
    first, last = newest[0], newest[-1]
    start, began = (first.iteration, first.seconds) if len(newest) > 1 else (0, 0.0)
    return (last.seconds - began) / max(1, last.iteration - start) * (last.total - last.iteration)


def stamp(folder: Path) -> Stamp | None:
    """A value that changes with every report."""
    try:
        found = (folder / METRICS).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def resumes_at(folder: Path) -> int | None:
    """The iteration of the newest checkpoint of a run, complete or not; None if it has none."""
    return reached(folder / CHECKPOINTS)
