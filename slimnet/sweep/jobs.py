"""The job of training one cell of a sweep: the command line of its process, and the outcome when it ends."""

import contextlib
import json
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimnet.errors import SlimnetError
from slimnet.storage.files import open_file, read_text, whole_file
from slimnet.storage.records import from_json
from slimnet.training import Recipe
from slimnet.training.recipe.continuation import AHEAD

PROGRAM = (sys.executable, "-m", "slimnet_cli")
"""The command line, run as a separate program; the library does not import it."""
INTERRUPTED = 130
ERROR = "error: "


@dataclass(frozen=True)
class Job:
    """The job of a process: a recipe's JSON, the folder of the run, and further options of `slimnet train`.

    Relative paths in the recipe are relative to `origin`.
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

    def log_lines(self, since: int = 0) -> list[str]:
        """The non-empty lines of its log after the first `since` bytes."""
        try:
            with open_file(self.log) as file:
                file.seek(since)
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return []
        return [line.strip() for line in text.splitlines() if line.strip()]

    def length(self) -> int:
        """The size of its log in bytes."""
        return self.log.stat().st_size if self.log.exists() else 0


@dataclass(frozen=True)
class Outcome:
    """The outcome of a cell: its result, or its error in one line; neither if it was interrupted."""

    key: str
    result: dict[str, Any] | None = None
    error: str | None = None

    @property
    def interrupted(self) -> bool:
        """Whether the cell was interrupted, and can be resumed."""
        return self.result is None and self.error is None


Outcomes = Generator[Outcome, None, None]


def command(job: Job) -> list[str]:
    """The command line that starts or resumes a cell."""
    train = [*PROGRAM, "train"]
    begun = job.folder / "recipe.json"
    if begun.exists():
        trust = []
        # An existing folder is untrusted: code that its recipe names runs only if the job names the same.
        with contextlib.suppress(SlimnetError, OSError, UnicodeDecodeError):
            if Recipe.from_json(read_text(begun)) == Recipe.from_json(job.recipe):
                trust = ["--trust"]
        return [*train, "--resume", str(job.folder), *trust, "--json", "--no-report", *job.options]
    asked = job.folder.with_name(f"{job.folder.name}.json")
    asked.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(asked, SlimnetError) as file:
        file.write_text(job.recipe, encoding="utf-8")
    return [*train, "--recipe", str(asked), "-o", str(job.folder), "--trust", "--json", "--no-report", *job.options]


def outcome(job: Job, exit_code: int, output: str, lines: Sequence[str]) -> Outcome:
    """The outcome of a finished process; `lines` are those of its log."""
    if exit_code == INTERRUPTED:
        return Outcome(job.key)
    if exit_code == 0:
        with contextlib.suppress(SlimnetError):
            result = from_json(dict[str, Any], output, "what the process wrote", SlimnetError)
            if has_other_length(job, result):
                return Outcome(job.key, error=f"the run in {job.folder} was given another length; move it elsewhere")
            return Outcome(job.key, result)
    errors = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    # The last log line of a killed process does not explain its end; that of an exception does.
    last = lines[-1:] if exit_code > 0 else []
    ended = f"it was killed by signal {-exit_code}" if exit_code < 0 else f"it ended with exit code {exit_code}"
    return Outcome(job.key, error=[ended, *last, *errors][-1])


def has_other_length(job: Job, result: Mapping[str, Any]) -> bool:
    """Whether the run of a job was made longer or shorter, so that its result is not that of the job's recipe."""
    if "recipe" not in result:
        return False
    ran, asked = Recipe.from_json(json.dumps(result["recipe"])), Recipe.from_json(job.recipe)
    return any(getattr(ran, name) != getattr(asked, name) for name in AHEAD)
