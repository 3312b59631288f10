"""Training the waiting cells of a sweep, and storing their outcomes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from slimnet_cli.progress.live_run import stop_on_interrupt
from slimnet_cli.progress.sweep_progress import watching

if TYPE_CHECKING:
    from slimnet_cli.progress.sweep_workers import Here, InTurn, Job, Outcome, Ray

    from slimnet.sweep import Store

Tell = Callable[[str], None]
Finished = Callable[[str, Tell], None]


def train_waiting(
    store: Store,
    jobs: Sequence[Job],
    names: Mapping[str, str],
    workers: Here | InTurn | Ray,
    *,
    finished: Finished | None = None,
    stop: threading.Event | None = None,
) -> bool:
    """Train the jobs and store their outcomes; returns whether any was left for a later run.

    `names` are what people know the cells by. `finished` is told the key of each cell that came to a result, and may
    tell in words how far it is with it. Setting `stop`, or Ctrl-C, lets the runs at hand save and leave.
    """
    stop = stop or threading.Event()
    left = False
    with stop_on_interrupt(stop.set), watching(jobs, names, stop.is_set) as watch:

        def begun(key: str) -> None:
            store.begin(key)
            watch.begin(key)

        with closing(workers.run(jobs, begun, stop.is_set)) as outcomes:
            for outcome in outcomes:
                keep(store, outcome)
                if outcome.result is not None and finished is not None:
                    finished(outcome.key, partial(watch.say, outcome.key))
                left = left or (outcome.result is None and outcome.error is None)
                watch.end(outcome)
    return left or stop.is_set()


def keep(store: Store, outcome: Outcome) -> None:
    """Store the outcome of a cell."""
    if outcome.result is not None:
        store.finish(outcome.key, outcome.result)
    elif outcome.error is not None:
        store.fail(outcome.key, outcome.error)
    else:
        store.leave(outcome.key)
