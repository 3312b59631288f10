"""The cells of a sweep, each trained by a process of its own, here or on a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INTERRUPTED = 130
POLL_SECONDS = 0.2
UNTIL_INPUT_ENDS = "--until-input-ends"


@dataclass(frozen=True)
class Job:
    """What a process is to train: a recipe's JSON, the folder of the run, and more options of `slimnet train`.

    `origin` is the folder that relative paths in the recipe start from.
    """

    key: str
    recipe: str
    folder: Path
    origin: Path
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: its result, or why it failed in one line; neither where it was interrupted."""

    key: str
    result: dict[str, Any] | None = None
    error: str | None = None


def command(job: Job) -> list[str]:
    """The command line that begins a cell, or goes on with it where it was begun."""
    train = [sys.executable, "-m", "slimnet_cli", "train"]
    if (job.folder / "recipe.json").exists():
        return [*train, "--resume", str(job.folder), "--json", "--no-report", *job.options]
    asked = job.folder.with_name(f"{job.folder.name}.json")
    asked.parent.mkdir(parents=True, exist_ok=True)
    asked.write_text(job.recipe, encoding="utf-8")
    return [*train, "--recipe", str(asked), "-o", str(job.folder), "--json", "--no-report", *job.options]


def outcome(job: Job, exit_code: int, output: str, errors: str) -> Outcome:
    """What a process's end means."""
    if exit_code == INTERRUPTED:
        return Outcome(job.key)
    if exit_code == 0:
        with contextlib.suppress(ValueError):
            return Outcome(job.key, json.loads(output))
    lines = [line for line in errors.splitlines() if line.strip()] or [f"it ended with exit code {exit_code}"]
    return Outcome(job.key, error=lines[-1].removeprefix("error: "))


@contextlib.contextmanager
def lifeline() -> Iterator[dict[str, Any]]:
    """How to start a process of a cell, so that it saves and leaves when this one is gone, however that came about.

    Its standard input is a pipe that nothing is written to. The other end is ours alone, and closes with us.
    """
    theirs, ours = os.pipe()
    try:
        yield {"stdin": theirs, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    finally:
        os.close(theirs)
        os.close(ours)


def train_elsewhere(job: Job) -> Outcome:
    """Train one cell to its end; what a Ray worker does."""
    with lifeline() as pipes:
        ended = subprocess.run([*command(job), UNTIL_INPUT_ENDS], cwd=job.origin, check=False, **pipes)
    return outcome(job, ended.returncode, ended.stdout, ended.stderr)


@dataclass
class Here:
    """Processes on this machine, `concurrent` at a time; they may share one GPU."""

    concurrent: int
    _running: set[subprocess.Popen[str]] = field(default_factory=set)

    def run(self, jobs: Sequence[Job], begun: Callable[[str], None], stopped: Callable[[], bool]) -> Iterator[Outcome]:
        """Train the cells in order and say how each ended; after a wish to stop, those at hand save and leave."""
        told = False
        with ThreadPoolExecutor(self.concurrent) as pool:
            waiting: set[Future[Outcome]] = {pool.submit(self._train, job, begun, stopped) for job in jobs}
            while waiting:
                done, waiting = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
                yield from (each.result() for each in done)
                if stopped() and not told:
                    told = True
                    for process in list(self._running):
                        process.send_signal(signal.SIGINT)

    def _train(self, job: Job, begun: Callable[[str], None], stopped: Callable[[], bool]) -> Outcome:
        if stopped():
            return Outcome(job.key)
        begun(job.key)
        with lifeline() as pipes:
            # In a session of its own, so that a Ctrl-C reaches it once, from us, and not from the terminal as well.
            process = subprocess.Popen(
                [*command(job), UNTIL_INPUT_ENDS], cwd=job.origin, start_new_session=True, **pipes
            )
            self._running.add(process)
            output, errors = process.communicate()
            self._running.discard(process)
        return outcome(job, process.returncode, output, errors)


@dataclass(frozen=True)
class InTurn:
    """This very process, which trains one cell after the other: short ones would wait for a new one too long."""

    def run(self, jobs: Sequence[Job], begun: Callable[[str], None], stopped: Callable[[], bool]) -> Iterator[Outcome]:
        """Train the cells in order and say how each ended; an interruption leaves the others to a later run."""
        interrupted = False
        for job in jobs:
            if interrupted or stopped():
                yield Outcome(job.key)
                continue
            begun(job.key)
            with interrupted_when(stopped):
                found = self._train(job)
            interrupted = found.result is None and found.error is None
            yield found

    @staticmethod
    def _train(job: Job) -> Outcome:
        import slimnet_cli

        output, errors = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(job.origin),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            exit_code = slimnet_cli.run(command(job)[3:])
        return outcome(job, exit_code, output.getvalue(), errors.getvalue())


@contextlib.contextmanager
def interrupted_when(stopped: Callable[[], bool]) -> Iterator[None]:
    """Interrupt this process, as Ctrl-C does, once it is to stop."""
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
    """Workers of a Ray cluster; the folder must be one that all of its machines see.

    `resources` are those of one cell, as Ray names them (`num_cpus`, `num_gpus`; a fraction shares a GPU).
    """

    address: str
    resources: dict[str, float]

    def run(self, jobs: Sequence[Job], begun: Callable[[str], None], stopped: Callable[[], bool]) -> Iterator[Outcome]:
        """Hand all cells to Ray and say how each ended; after a wish to stop, the others are called off."""
        ray = self._cluster()
        try:
            train = ray.remote(max_retries=0, **self.resources)(train_elsewhere)
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
        """Ray itself, once it is in touch with its cluster.

        Raises:
            UsageError: there is none at the address.
        """
        from slimnet.errors import UsageError

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray: Any = importlib.import_module("ray")
        try:
            ray.init(address=self.address, log_to_driver=False, include_dashboard=False)
        except Exception as error:  # What Ray raises here is of no one kind.
            why = (str(error).strip().splitlines() or ["it is not reached"])[0]
            told = f"no Ray cluster at {self.address!r} ({why}); `ray start --head` begins one, and --ray takes"
            raise UsageError(f"{told} the address of any") from error
        return ray

    @staticmethod
    def _outcome(ray: Any, job: Job, reference: Any) -> Outcome:
        try:
            found: Outcome = ray.get(reference)
        except ray.exceptions.RayError as error:
            return Outcome(job.key, error=f"its Ray worker: {(str(error).strip().splitlines() or ['died'])[-1]}")
        return found
