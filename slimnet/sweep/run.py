"""A sweep: workers train its waiting cells, and every outcome is stored immediately."""

from collections.abc import Callable, Sequence
from contextlib import closing

from slimnet.sweep.jobs import Job, Outcome
from slimnet.sweep.store import Store
from slimnet.sweep.workers import Stopped, Workers


def train_jobs(
    store: Store,
    jobs: Sequence[Job],
    workers: Workers,
    stopped: Stopped,
    *,
    begun: Callable[[str], None],
    ended: Callable[[Outcome], None],
) -> bool:
    """Train the jobs and store their outcomes; returns whether any remain for a later run.

    `begun` is called with the key of a cell after it was stored as running, `ended` with each stored outcome. After a
    stop request the current runs save and exit.
    """
    left = False

    def begin(key: str) -> None:
        store.begin(key)
        begun(key)

    with closing(workers.run(jobs, begin, stopped)) as outcomes:
        for outcome in outcomes:
            keep(store, outcome)
            ended(outcome)
            left = left or outcome.interrupted
    return left or stopped()


def keep(store: Store, outcome: Outcome) -> None:
    """Store the outcome of a cell."""
    if outcome.result is not None:
        store.finish(outcome.key, outcome.result)
    elif outcome.error is not None:
        store.fail(outcome.key, outcome.error)
    else:
        store.leave(outcome.key)
