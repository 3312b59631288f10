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
    """Train the jobs and store their outcomes; returns whether any remain for a later run.

    `names` are the display names of the cells. `finished` is called with the key of each cell that has a result, and a
    function that shows the state of its further work. After `stop` is set, or Ctrl-C, the current runs save and exit.
    """
    from slimnet.sweep.run import train_jobs

    stop = stop or threading.Event()
    with stop_on_interrupt(stop.set), watching(jobs, names, stop.is_set) as watch:

        def ended(outcome: Outcome) -> None:
            if outcome.result is not None and finished is not None:
                finished(outcome.key, partial(watch.say, outcome.key))
            watch.end(outcome)

        return train_jobs(store, jobs, workers, stop.is_set, begun=watch.begin, ended=ended)
