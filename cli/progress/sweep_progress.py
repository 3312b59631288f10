"""The progress of a sweep: the state of its current cells, and the outcome of finished ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from slimnet_cli.output import terminal
from slimnet_cli.progress import live_run

if TYPE_CHECKING:
    from slimnet.sweep.jobs import Job, Outcome
    from slimnet.training.run.run_status import RunStatus, Stamp

LOOK_SECONDS = 1.0
SHOWN = 12
"""The number of cells shown at a time; a cluster may train more."""

STOPPING = "stopping: current runs finish their step, save and exit; a second Ctrl-C ends them at once"


@dataclass(frozen=True)
class AtWork:
    """A current cell, with the state of its folder and its log at the start; `words` override them."""

    name: str
    job: Job
    before: Stamp | None
    since: int
    words: str | None = None

    def line(self) -> str:
        """Its state in words."""
        from slimnet.training.run.run_status import stamp, status_of

        now = stamp(self.job.folder)
        found = status_of(self.job.folder) if now != self.before else None
        if self.words is None and found is not None:
            return f"{self.name}: {describe_status(found)}"
        # Before the first report: the last line of its log, such as about its data.
        lines = self.job.log_lines(self.since)
        return f"{self.name}: {self.words or (lines[-1] if lines else 'starting')}"


@dataclass(frozen=True)
class Watch:
    """The current cells by their keys, and the board on which they are shown; `names` are their display names."""

    jobs: Mapping[str, Job]
    names: Mapping[str, str]
    board: terminal.ProgressBoard
    showing_progress: dict[str, AtWork] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)

    def begin(self, key: str) -> None:
        """Add a cell that starts or resumes now."""
        from slimnet.training.run.run_status import resumes_at, stamp

        job = self.jobs[key]
        self.showing_progress[key] = AtWork(self.names[key], job, stamp(job.folder), job.length())
        reached = resumes_at(job.folder)
        if reached is not None:
            self.board.say(f"{self.names[key]}: resumes from iteration {reached:,}")

    def say(self, key: str, words: str) -> None:
        """Set the state of a cell in words."""
        known = self.showing_progress.get(key) or AtWork(self.names[key], self.jobs[key], None, 0)
        self.showing_progress[key] = replace(known, words=words)

    def end(self, outcome: Outcome) -> None:
        """Remove a cell that has ended; an interrupted one, or one that never started, is not counted."""
        self.showing_progress.pop(outcome.key, None)
        if outcome.interrupted:
            return
        self.ended.append(outcome.key)
        place = f"{len(self.ended)} of {len(self.jobs)}"
        self.board.say(f"{place}: {self.names[outcome.key]} {became(outcome)}")

    def show(self) -> None:
        """Update the board."""
        cells = list(self.showing_progress.values())
        lines = [cell.line() for cell in cells[:SHOWN]]
        more = [f"and {len(cells) - SHOWN} more"] if len(cells) > SHOWN else []
        self.board.show(len(self.ended), [*lines, *more])


def describe_status(found: RunStatus) -> str:
    """A report in words, with the remaining time."""
    from slimnet.durations import in_words

    now = found.progress
    if now.iteration == now.total:
        return "trained; its accuracy is being measured"
    left = f", {in_words(found.seconds_left)} left"
    place = f"iteration {now.iteration:,} of {now.total:,}"
    return f"{place}, {live_run.described(now)}{left}"


def became(outcome: Outcome) -> str:
    """The outcome of a cell in a few words."""
    from slimnet.durations import in_words

    if outcome.result is None:
        return f"failed: {outcome.error}"
    error = 100 * (1 - outcome.result["accuracy"]["top1"])
    dead, seconds = 100 * outcome.result["dead_filters"], in_words(outcome.result["seconds"])
    return f"done in {seconds}: {error:.1f} % error, {dead:.0f} % of the filters dead"


@contextmanager
def watching(jobs: Sequence[Job], names: Mapping[str, str], stopped: Callable[[], bool]) -> Iterator[Watch]:
    """Show the current cells from their folders, on whichever machine they run."""
    done = threading.Event()
    with terminal.board("Training cells", len(jobs)) as board:
        watch = Watch({job.key: job for job in jobs}, names, board)

        def look() -> None:
            told_of_stop = False
            while not done.wait(LOOK_SECONDS):
                if stopped() and not told_of_stop:
                    told_of_stop = True
                    board.say(STOPPING)
                watch.show()

        watcher = threading.Thread(target=look, name="slimnet-watch", daemon=True)
        watcher.start()
        try:
            yield watch
        finally:
            done.set()
            watcher.join()
