"""The work of other programs on the cores that this process may use, as Linux counts it."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

BUSY_CORES = 0.3
"""The number of cores, kept busy by other programs, from which on latencies are unreliable."""
WATCH_SECONDS = 0.25
"""How long the load is watched at least; the system counts hundredths of a second."""


def other_work() -> float | None:
    """The number of usable cores that are busy while this process sleeps; None if the system does not report it."""
    measured = load_meter()
    time.sleep(WATCH_SECONDS)
    found = measured()
    return None if found is None else round(found, 1)


def load_meter() -> Callable[[], float | None]:
    """A function that returns how many cores other processes have kept busy on average since it was made.

    It returns None if too little time has passed, or the system does not report it.
    """
    before, began, own = _busy_seconds(), time.perf_counter(), time.process_time()

    def measured() -> float | None:
        after, passed = _busy_seconds(), time.perf_counter() - began
        if before is None or after is None or passed < WATCH_SECONDS:
            return None
        return max(0.0, (after - before - (time.process_time() - own)) / passed)

    return measured


def overload(threads: int, others: float | None, cores: int) -> float | None:
    """The number of cores by which so many threads and other programs exceed those there are."""
    return None if others is None else max(0.0, threads + others - cores)


def _busy_seconds() -> float | None:
    """The seconds for which the usable cores have been busy since the system started."""
    if sys.platform != "linux":
        return None
    try:
        lines = Path("/proc/stat").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    rows = [line.split() for line in lines]
    busy = [sum(map(int, row[1:4])) for row in rows if row and row[0] in ours]
    return sum(busy) / os.sysconf("SC_CLK_TCK") if busy else None
