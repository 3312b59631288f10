"""The cells of a sweep, each trained by a process of its own, here or on a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INTERRUPTED = 130
POLL_SECONDS = 0.2
UNTIL_INPUT_ENDS = "--until-input-ends"
ERROR = "error: "
PATIENCE = 600.0
"""Seconds that a process has, after its sweep has ended, to finish its step, save and exit."""

Stopped = Callable[[], bool]


@dataclass(frozen=True)
class Job:
    """The job of a process: a recipe's JSON, the folder of the run, and more options of `slimnet train`.

    `origin` is the folder that relative paths in the recipe start from.
    """

    key: str
    recipe: str
    folder: Path
    origin: Path
    options: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        """The log file of the process."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def said(self, since: int = 0) -> list[str]:
        """The non-empty lines of its log, from a byte on."""
        from slimnet.storage.files import open_file

        try:
            with open_file(self.log) as file:
                file.seek(since)
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return []
        return [line.strip() for line in text.splitlines() if line.strip()]

    def length(self) -> int:
        """The bytes in its log."""
        return self.log.stat().st_size if self.log.exists() else 0


@dataclass(frozen=True)
class Outcome:
    """The outcome of a cell: its result, or its error in one line; neither where it was interrupted."""

    key: str
    result: dict[str, Any] | None = None
    error: str | None = None


Outcomes = Generator[Outcome, None, None]


def command(job: Job) -> list[str]:
    """The command line that starts or resumes a cell."""
    from slimnet.errors import SlimnetError
    from slimnet.storage.files import read_text, whole_file
    from slimnet.training import Recipe

    train = [sys.executable, "-m", "slimnet_cli", "train"]
    begun = job.folder / "recipe.json"
    if begun.exists():
        trust = []
        # A folder may have come from elsewhere: what its recipe names is built only where the job asks for the same.
        with contextlib.suppress(SlimnetError, OSError, UnicodeDecodeError):
            if Recipe.from_json(read_text(begun)) == Recipe.from_json(job.recipe):
                trust = ["--trust"]
        return [*train, "--resume", str(job.folder), *trust, "--json", "--no-report", *job.options]
    asked = job.folder.with_name(f"{job.folder.name}.json")
    asked.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(asked, SlimnetError) as file:
        file.write_text(job.recipe, encoding="utf-8")
    return [*train, "--recipe", str(asked), "-o", str(job.folder), "--trust", "--json", "--no-report", *job.options]


def outcome(job: Job, exit_code: int, output: str, said: Sequence[str]) -> Outcome:
    """The outcome of a finished process; `said` are the lines of its log."""
    from slimnet.errors import SlimnetError
    from slimnet.storage.records import from_json

    if exit_code == INTERRUPTED:
        return Outcome(job.key)
    if exit_code == 0:
        with contextlib.suppress(SlimnetError):
            return Outcome(job.key, from_json(dict[str, Any], output, "what the process wrote", SlimnetError))
    told = [line.removeprefix(ERROR) for line in said if line.startswith(ERROR)]
    # The last words of one that was killed are about something else; those of a bug are what it was.
    last = said[-1:] if exit_code > 0 else []
    ended = f"it was killed by signal {-exit_code}" if exit_code < 0 else f"it ended with exit code {exit_code}"
    return Outcome(job.key, error=[ended, *last, *told][-1])


@contextlib.contextmanager
def lifeline(job: Job) -> Iterator[dict[str, Any]]:
    """How to start a process of a cell, so that it saves and exits when this one ends, for whatever reason.

    Its standard input is a pipe that nothing is written to. Only this process has the other end, which closes with it.
    Its messages go into its log.
    """
    from slimnet.storage.files import open_to_append

    theirs, ours = os.pipe()
    try:
        with open_to_append(job.log) as log:
            yield {"stdin": theirs, "stdout": subprocess.PIPE, "stderr": log, "text": True}
    finally:
        os.close(theirs)
        os.close(ours)


def await_leaving(folder: Path, stopped: Stopped) -> None:
    """Wait for a process of an earlier, killed sweep to save its run and exit."""
    from slimnet.storage.files import in_use

    deadline = time.monotonic() + PATIENCE
    while in_use(folder) and not stopped() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def train_elsewhere(job: Job, stopped: Stopped = lambda: False) -> Outcome:
    """Train one cell to its end in a process of its own, which saves and exits after a stop request."""
    await_leaving(job.folder, stopped)
    if stopped():
        return Outcome(job.key)
    arguments, since = [*command(job), UNTIL_INPUT_ENDS], job.length()
    with lifeline(job) as pipes:
        # In a session of its own, so that a Ctrl-C reaches it once, from us, and not from the terminal as well.
        process = subprocess.Popen(arguments, cwd=job.origin, start_new_session=True, **pipes)
        output = ended(process, stopped)
    return outcome(job, process.returncode, output, job.said(since))


def ended(process: subprocess.Popen[str], stopped: Stopped) -> str:
    """Wait for a process to end, and pass a stop request on to it, once; returns its output."""
    told = False
    while True:
        try:
            return process.communicate(timeout=POLL_SECONDS)[0]
        except subprocess.TimeoutExpired:
            if stopped() and not told:
                told = True
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
            return train_elsewhere(job, ending)

        def ending() -> bool:
            return abandoned.is_set() or stopped()

        with ThreadPoolExecutor(self.concurrent) as pool:
            try:
                yield from (each.result() for each in as_completed([pool.submit(train, job) for job in jobs]))
            finally:
                # Whatever ended this, nothing more is begun and what runs is told to save.
                abandoned.set()


@dataclass(frozen=True)
class InTurn:
    """Trains the cells in this process, one after the other: starting a process would take short ones too long."""

    def run(self, jobs: Sequence[Job], begun: Callable[[str], None], stopped: Stopped) -> Outcomes:
        """Train the cells in order and yield their outcomes; an interruption leaves the others to a later run."""
        interrupted = False
        for job in jobs:
            if interrupted or stopped():
                yield Outcome(job.key)
                continue
            begun(job.key)
            await_leaving(job.folder, stopped)
            with interrupted_when(stopped):
                found = self._train(job)
            interrupted = found.result is None and found.error is None
            yield found

    @staticmethod
    def _train(job: Job) -> Outcome:
        import slimnet_cli

        from slimnet.storage.files import open_to_append

        arguments, since, output = command(job)[3:], job.length(), io.StringIO()
        with (
            open_to_append(job.log) as log,
            contextlib.chdir(job.origin),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(log),
        ):
            exit_code = slimnet_cli.run(arguments)
        return outcome(job, exit_code, output.getvalue(), job.said(since))


@contextlib.contextmanager
def interrupted_when(stopped: Stopped) -> Iterator[None]:
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

    def run(self, jobs: Sequence[Job], begun: Callable[[str], None], stopped: Stopped) -> Outcomes:
        """Submit all cells to Ray and yield their outcomes; after a stop request, the others are cancelled."""
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
        """Ray itself, connected to its cluster.

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
            told = f"no Ray cluster at {self.address!r} ({why}); `ray start --head` starts one, and --ray takes"
            raise UsageError(f"{told} the address of any") from error
        return ray

    @staticmethod
    def _outcome(ray: Any, job: Job, reference: Any) -> Outcome:
        try:
            found: Outcome = ray.get(reference)
        except ray.exceptions.RayError as error:
            return Outcome(job.key, error=f"its Ray worker: {(str(error).strip().splitlines() or ['died'])[-1]}")
        return found
