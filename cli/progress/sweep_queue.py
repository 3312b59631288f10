"""Training the waiting cells of a sweep, shown in a terminal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from slimnet_cli.progress.live_run import stop_on_interrupt
from slimnet_cli.progress.sweep_progress import watching

if TYPE_CHECKING:
    from slimnet.sweep import Store
    from slimnet.sweep.jobs import Job, Outcome
    from slimnet.sweep.workers import Workers

Tell = Callable[[str], None]
Finished = Callable[[str, Tell], None]


def train_waiting(
    store: Store,
    jobs: Sequence[Job],
    names: Mapping[str, str],
    workers: Workers,
    *,
    finished: Finished | None = None,
    stop: threading.Event | None = None,
) -> bool:
    """Train the jobs and store their outcomes; returns whether any was left for a later run.

    `names` are what people know the cells by. `finished` is told the key of each cell that came to a result, and may
    tell in words how far it is with it. Setting `stop`, or Ctrl-C, lets the runs at hand save and leave.
    """
    from slimnet.sweep.run import train_jobs

    stop = stop or threading.Event()
    with stop_on_interrupt(stop.set), watching(jobs, names, stop.is_set) as watch:

        def ended(outcome: Outcome) -> None:
            if outcome.result is not None and finished is not None:
                finished(outcome.key, partial(watch.say, outcome.key))
            watch.end(outcome)

        return train_jobs(store, jobs, workers, stop.is_set, begun=watch.begin, ended=ended)
