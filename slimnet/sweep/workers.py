"""Workers that train the cells of a sweep: processes on this machine or a Ray cluster, or the current process."""

import contextlib
import importlib
import io
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from slimnet.errors import UsageError
from slimnet.storage.files import in_use, open_to_append
from slimnet.sweep.jobs import PROGRAM, Job, Outcome, Outcomes, command, outcome

POLL_SECONDS = 0.2
UNTIL_INPUT_ENDS = "--until-input-ends"
PATIENCE = 600.0
"""The seconds that a process has, after its sweep has ended, to finish its step, save and exit."""

LOCAL_ATTEMPTS = 4
"""The number of attempts to start a cluster on this machine; on a busy machine Ray times out after half a minute."""

Stopped = Callable[[], bool]


class Workers(Protocol):
    """The interface of workers, which train jobs."""

    def run(self, jobs: Sequence[Job], begun: Callable[[str], None], stopped: Stopped) -> Outcomes:
        """Train the cells and yield their outcomes; after a stop request the current ones save and exit."""


@contextlib.contextmanager
def lifeline(job: Job) -> Iterator[dict[str, Any]]:
    """The arguments of `Popen` for the process of a cell, so that it saves and exits when this process ends.

    Its standard input is a parent-death pipe: nothing is written to it, and only this process has the other end, which
    is closed when this process ends. Its standard error is its log.
    """
    theirs, ours = os.pipe()
    try:
        with open_to_append(job.log) as log:
            yield {"stdin": theirs, "stdout": subprocess.PIPE, "stderr": log, "text": True}
    finally:
        os.close(theirs)
        os.close(ours)


def wait_until_released(folder: Path, stopped: Stopped) -> None:
    """Wait until a process of an earlier, killed sweep has saved its run and exited."""
    deadline = time.monotonic() + PATIENCE
    while in_use(folder) and not stopped() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def train_in_subprocess(job: Job, stopped: Stopped = lambda: False) -> Outcome:
    """Train one cell in a separate process, which saves and exits after a stop request."""
    wait_until_released(job.folder, stopped)
    if stopped():
        return Outcome(job.key)
    arguments, since = [*command(job), UNTIL_INPUT_ENDS], job.length()
    with lifeline(job) as pipes:
        # A new session, so that Ctrl-C reaches the process once, from us, and not from the terminal too.
        process = subprocess.Popen(arguments, cwd=job.origin, start_new_session=True, **pipes)
        output = wait_for(process, stopped)
    return outcome(job, process.returncode, output, job.log_lines(since))


def wait_for(process: subprocess.Popen[str], stopped: Stopped) -> str:
    """Wait for a process to end, and forward a stop request to it once; returns its output."""
    forwarded = False
    while True:
        try:
            return process.communicate(timeout=POLL_SECONDS)[0]
        except subprocess.TimeoutExpired:
            if stopped() and not forwarded:
                forwarded = True
                process.send_signal(signal.SIGINT)


@dataclass(frozen=True)
class Here:
    """Processes on this machine, `concurrent` at a time; they may share one GPU."""

    concurrent: int

    def run(self, jobs: Sequence[Job], begun: Callable[[str], None], stopped: Stopped) -> Outcomes:
        """Train the cells in order and yield their outcomes; after a stop request the current ones save and exit."""
        abandoned = threading.Event()

        def train(job: Job) -> Outcome:
            if ending():
                return Outcome(job.key)
            begun(job.key)
            return train_in_subprocess(job, ending)

        def ending() -> bool:
            return abandoned.is_set() or stopped()

        with ThreadPoolExecutor(self.concurrent) as pool:
            try:
                yield from (each.result() for each in as_completed([pool.submit(train, job) for job in jobs]))
            finally:
                # Whatever the reason, no further cell is started, and running ones are stopped with a save.
                abandoned.set()


@dataclass(frozen=True)
class InTurn:
    """Trains the cells in this process, one after the other: for short runs, starting a process takes too long.

    `program` runs the command line with arguments and returns the exit code.
    """

    program: Callable[[Sequence[str]], int]

    def run(self, jobs: Sequence[Job], begun: Callable[[str], None], stopped: Stopped) -> Outcomes:
        """Train the cells in order and yield their outcomes; after an interruption the others remain waiting."""
        interrupted = False
        for job in jobs:
            if interrupted or stopped():
                yield Outcome(job.key)
                continue
            begun(job.key)
            wait_until_released(job.folder, stopped)
            with interrupted_when(stopped):
                found = self._train(job)
            interrupted = found.interrupted
            yield found

    def _train(self, job: Job) -> Outcome:
        arguments, since, output = command(job)[len(PROGRAM) :], job.length(), io.StringIO()
        with (
            open_to_append(job.log) as log,
            contextlib.chdir(job.origin),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(log),
        ):
            exit_code = self.program(arguments)
        return outcome(job, exit_code, output.getvalue(), job.log_lines(since))


@contextlib.contextmanager
def interrupted_when(stopped: Stopped) -> Iterator[None]:
    """Interrupt this process, as Ctrl-C does, after a stop request."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            if stopped():
                os.kill(os.getpid(), signal.SIGINT)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


@dataclass(frozen=True)
class Ray:
    """Workers of a Ray cluster; all of its machines must share the folder.

    `resources` are those of one cell, by Ray's names (`num_cpus`, `num_gpus`; a fraction shares a GPU).
    """

    address: str
    resources: dict[str, float]

    def run(self, jobs: Sequence[Job], begun: Callable[[str], None], stopped: Stopped) -> Outcomes:
        """Submit all cells to Ray and yield their outcomes; after a stop request, the others are cancelled."""
        ray = self._cluster()
        try:
            train = ray.remote(max_retries=0, **self.resources)(train_in_subprocess)
            waiting = {train.remote(job): job for job in jobs}
            for job in jobs:
                begun(job.key)
            while waiting:
                done, _ = ray.wait(list(waiting), timeout=POLL_SECONDS)
                for each in done:
                    yield self._outcome(ray, waiting.pop(each), each)
                if stopped():
                    for each in waiting:
                        ray.cancel(each)
                    yield from (Outcome(job.key) for job in waiting.values())
                    return
        finally:
            ray.shutdown()

    def _cluster(self) -> Any:
        """The module `ray`, connected to the cluster.

        Raises:
            UsageError: there is no cluster at the address.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray: Any = importlib.import_module("ray")
        try:
            self._connect(ray, LOCAL_ATTEMPTS if self.address == "local" else 1)
        except Exception as error:  # Ray's errors have no common base
            why = (str(error).strip().splitlines() or ["it is not reached"])[0]
            raise UsageError(
                f"no Ray cluster at {self.address!r} ({why}); `ray start --head` starts one, and --ray takes "
                "the address of any"
            ) from error
        return ray

    def _connect(self, ray: Any, attempts: int) -> None:
        for left in reversed(range(attempts)):
            try:
                ray.init(address=self.address, log_to_driver=False, include_dashboard=False)
                return
            except Exception as error:
                if not left or "timed out" not in str(error):
                    raise
                ray.shutdown()

    @staticmethod
    def _outcome(ray: Any, job: Job, reference: Any) -> Outcome:
        try:
            found: Outcome = ray.get(reference)
        except ray.exceptions.RayError as error:
            return Outcome(job.key, error=f"its Ray worker: {(str(error).strip().splitlines() or ['died'])[-1]}")
        return found
