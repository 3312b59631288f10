"""The cells of a sweep as they are watched: what each that is at work is doing, and what became of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from slimnet_cli.output import terminal
from slimnet_cli.progress import live_run

if TYPE_CHECKING:
    from slimnet_cli.progress.sweep_workers import Job, Outcome

    from slimnet.training.run.run_status import RunStatus, Stamp

LOOK_SECONDS = 1.0
SHOWN = 12
"""Cells that are shown at a time; a cluster may have more at work."""

STOPPING = "stopping: what is at work ends its step, saves and leaves; a second Ctrl-C ends this at once"


@dataclass(frozen=True)
class AtWork:
    """A cell that was begun, with what its folder and its log were like before; `words` override what they say."""

    name: str
    job: Job
    before: Stamp | None
    since: int
    words: str | None = None

    def line(self) -> str:
        """How it stands."""
        from slimnet.training.run.run_status import stamp, standing

        now = stamp(self.job.folder)
        found = standing(self.job.folder) if now != self.before else None
        if self.words is None and found is not None:
            return f"{self.name}: {told(found)}"
        # Before the first report, what the process says about its data and the like.
        said = self.job.said(self.since)
        return f"{self.name}: {self.words or (said[-1] if said else 'starting')}"


@dataclass(frozen=True)
class Watch:
    """What is at work, by its key, and the board that it is shown on; `names` are what people know the cells by."""

    jobs: Mapping[str, Job]
    names: Mapping[str, str]
    board: terminal.ProgressBoard
    at_work: dict[str, AtWork] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)

    def begin(self, key: str) -> None:
        """A cell is at work from now on, from where it stopped."""
        from slimnet.training.run.run_status import resumes_at, stamp

        job = self.jobs[key]
        self.at_work[key] = AtWork(self.names[key], job, stamp(job.folder), job.length())
        reached = resumes_at(job.folder)
        if reached is not None:
            self.board.say(f"{self.names[key]}: goes on from iteration {reached:,}")

    def say(self, key: str, words: str) -> None:
        """Something else is done with a cell."""
        known = self.at_work.get(key) or AtWork(self.names[key], self.jobs[key], None, 0)
        self.at_work[key] = replace(known, words=words)

    def end(self, outcome: Outcome) -> None:
        """A cell has ended; one that was interrupted, or never begun, counts for nothing."""
        self.at_work.pop(outcome.key, None)
        if outcome.result is None and outcome.error is None:
            return
        self.ended.append(outcome.key)
        place = f"{len(self.ended)} of {len(self.jobs)}"
        self.board.say(f"{place}: {self.names[outcome.key]} {became(outcome)}")

    def show(self) -> None:
        """Bring the board up to date."""
        cells = list(self.at_work.values())
        lines = [cell.line() for cell in cells[:SHOWN]]
        more = [f"and {len(cells) - SHOWN} more"] if len(cells) > SHOWN else []
        self.board.show(len(self.ended), [*lines, *more])


def told(found: RunStatus) -> str:
    """A report in words, with the time that is left."""
    from slimnet.reproduction.timing import in_words

    now = found.progress
    if now.iteration == now.total:
        return "trained; its accuracy is being measured"
    left = f", {in_words(found.seconds_left)} left"
    place = f"iteration {now.iteration:,} of {now.total:,}"
    return f"{place}, {live_run.described(now)}{left}"


def became(outcome: Outcome) -> str:
    """What a cell has come to, in a few words."""
    from slimnet.reproduction.timing import in_words

    if outcome.result is None:
        return f"failed: {outcome.error}"
    error = 100 * (1 - outcome.result["accuracy"]["top1"])
    dead, seconds = 100 * outcome.result["dead_filters"], in_words(outcome.result["seconds"])
    return f"done in {seconds}: {error:.1f} % error, {dead:.0f} % of the filters dead"


@contextmanager
def watching(jobs: Sequence[Job], names: Mapping[str, str], stopped: Callable[[], bool]) -> Iterator[Watch]:
    """Show what is at work from now on, as its folder tells it, wherever it runs."""
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
