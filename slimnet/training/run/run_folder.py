"""The folder of a run: its recipe, its metrics, and its checkpoints and history.

* recipe.json: everything needed to repeat it
* images.json: size, normalisation and classes of its images
* metrics.jsonl: one JSON object for each report
* sessions.jsonl: one JSON object for each session, a process that trained the run
* history/NNNNNNNN.safetensors: γ and β of every BatchNorm, about fifty times
* checkpoints/NNNNNNNN.pt: the newest two, from which the run resumes
* model_best.pt: the weights of the best evaluation so far, in a run that is validated
* model.pt, report.html, slim/: of a finished run; model_N.pt and so on where it had N iterations before
* lock: held while a process trains here
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from slimnet.errors import CheckpointError, SlimnetError, UsageError
from slimnet.storage.files import held, open_file, open_to_append, os_errors_as, read_text, whole_file
from slimnet.storage.folder_names import CHECKPOINTS as CHECKPOINTS
from slimnet.storage.folder_names import MODEL as MODEL
from slimnet.storage.folder_names import RECIPE as RECIPE
from slimnet.storage.records import from_json
from slimnet.storage.staging import clear
from slimnet.storage.written_folders import RUN
from slimnet.training.loop.progress import Progress, Snapshot
from slimnet.training.recipe.recipe import Recipe
from slimnet.training.run import checkpoints
from slimnet.training.run.sessions import Session

METRICS, SESSIONS = "metrics.jsonl", "sessions.jsonl"
HISTORY, REPORT, BUNDLE = "history", "report.html", "slim"
SCALE, SHIFT = "scale/", "shift/"
KEPT_SUFFIX = ".safetensors"

Kept = tuple[list[str], dict[str, torch.Tensor]]
"""The content of a file of the history: its layers in order, and its tensors."""


@dataclass(frozen=True, eq=False)
class RunHistory:
    """The history of a run in its folder.

    Attributes:
        recipe: its recipe.
        progress: every report, in order.
        iterations: the iterations of the snapshots, int64 `(T,)`.
        scales: γ of every BatchNorm by module path, in module order, `(T, channels)`.
        shifts: β of every BatchNorm that has it, likewise.
    """

    recipe: Recipe
    progress: list[Progress]
    iterations: torch.Tensor
    scales: dict[str, torch.Tensor]
    shifts: dict[str, torch.Tensor]


class RunFolder:
    """A run's folder, locked by the one process that writes to it; see `create_run` and `reopen_run`.

    Attributes:
        path: the path of the folder.
        recipe: the recipe of the run.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe
        for name in (CHECKPOINTS, HISTORY):
            with os_errors_as(path / name, SlimnetError):
                (path / name).mkdir(exist_ok=True)
        self._metrics: IO[str] | None = None

    def checkpoint(self) -> checkpoints.Found | None:
        """The newest readable checkpoint; see `checkpoints.newest`.

        Raises:
            CheckpointError: all of them are damaged.
        """
        return checkpoints.newest(self.path / CHECKPOINTS)

    def save(self, state: Mapping[str, Any]) -> Path:
        """Write a checkpoint, after the metrics up to it are on the disk.

        Raises:
            SlimnetError: it cannot be written.
        """
        if self._metrics is not None:
            with os_errors_as(self.path / METRICS, SlimnetError):
                os.fsync(self._metrics.fileno())
        return checkpoints.save(self.path / CHECKPOINTS, state)

    def change(self, recipe: Recipe) -> None:
        """Give the run a recipe with another length, or another place of the same data.

        What a finished run of another length left is renamed, with its iterations.

        Raises:
            SlimnetError: the recipe cannot be written, or a file not renamed.
        """
        if dataclasses.replace(self.recipe, data=recipe.data) != recipe:
            # First, so that a process that ends here leaves a run whose last results are written again.
            for name in (MODEL, REPORT, BUNDLE):
                self._set_aside(self.path / name)
        write_recipe(self.path, recipe)
        self.recipe = recipe

    def _set_aside(self, path: Path) -> None:
        aside = path.with_name(f"{path.stem}_{self.recipe.iterations}{path.suffix}")
        with os_errors_as(path, SlimnetError):
            if not path.exists():
                return
            if aside.is_dir():
                shutil.rmtree(aside)
            path.rename(aside)

    def reached(self) -> int:
        """The iteration of the newest checkpoint by its name; 0 if there is none."""
        return checkpoints.reached(self.path / CHECKPOINTS) or 0

    def forget_after(self, iteration: int) -> None:
        """Delete the reports after an iteration, which will be repeated, and incomplete files.

        Raises:
            UsageError: a line of the metrics is damaged.
            SlimnetError: they cannot be written.
        """
        for name in (CHECKPOINTS, HISTORY):
            clear(self.path / name)
        with os_errors_as(self.path, SlimnetError):
            for number, path in checkpoints.numbered(self.path / HISTORY, KEPT_SUFFIX).items():
                if number > iteration:
                    path.unlink()
        kept = [line for line, progress in _reports(self.path) if progress.iteration <= iteration]
        with whole_file(self.path / METRICS, SlimnetError) as path:
            path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def report(self, progress: Progress) -> None:
        """Append a line to the metrics; an incomplete one after a crash is deleted when the run resumes.

        Raises:
            SlimnetError: it cannot be written.
        """
        told_of = {name: value for name, value in dataclasses.asdict(progress).items() if value is not None}
        with os_errors_as(self.path / METRICS, SlimnetError):
            if self._metrics is None:
                self._metrics = open_to_append(self.path / METRICS)
            self._metrics.write(json.dumps(told_of, allow_nan=False) + "\n")
            self._metrics.flush()

    def remember(self, snapshot: Snapshot) -> None:
        """Add γ and β to the history.

        Raises:
            SlimnetError: it cannot be written.
        """
        tensors = {SCALE + name: value for name, value in snapshot.scales.items()}
        tensors |= {SHIFT + name: value for name, value in snapshot.shifts.items()}
        order = {"layers": json.dumps(list(snapshot.scales))}
        with whole_file(self.path / HISTORY / f"{snapshot.progress.iteration:08d}{KEPT_SUFFIX}", SlimnetError) as path:
            path.write_bytes(safetensors.torch.save(tensors, order))

    def add_session(self, session: Session) -> None:
        """Append a line to the sessions.

        Raises:
            SlimnetError: it cannot be written.
        """
        with os_errors_as(self.path / SESSIONS, SlimnetError), open_to_append(self.path / SESSIONS) as file:
            file.write(session.to_line())

    def last_session(self) -> Session | None:
        """The last session; None if there is none.

        Raises:
            UsageError: the file of sessions cannot be read.
        """
        try:
            lines = read_text(self.path / SESSIONS, errors="replace").splitlines()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{self.path / SESSIONS} cannot be read: {error.strerror}") from error
        return next(filter(None, map(Session.from_line, reversed(lines))), None)

    def close(self) -> None:
        """Close the metrics file."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None


@contextmanager
def create_run(path: str | Path, recipe: Recipe) -> Iterator[RunFolder]:
    """Create the folder of a new run, and lock it in the context.

    Raises:
        UsageError: it exists and is not empty, or another process holds it.
        SlimnetError: it cannot be written.
    """
    path = Path(path)
    refuse_taken(path)
    with os_errors_as(path, SlimnetError):
        path.mkdir(parents=True, exist_ok=True)
    with held(path, UsageError, "training"):
        refuse_taken(path)
        write_recipe(path, recipe)
        yield from _opened(path, recipe)


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write the recipe of a run into its folder.

    Raises:
        SlimnetError: it cannot be written; an earlier one is unchanged.
    """
    with whole_file(path / RECIPE, SlimnetError) as file:
        file.write_text(recipe.to_json() + "\n", encoding="utf-8")


def refuse_taken(path: Path) -> None:
    """Refuse a folder for a new run that is not empty.

    Raises:
        UsageError: it is not empty, or cannot be read.
    """
    RUN.refuse_taken(path, UsageError, f"resume it with --resume {path}, or name another folder")


@contextmanager
def reopen_run(path: str | Path) -> Iterator[RunFolder]:
    """Open the folder of an earlier run again, and lock it in the context.

    Raises:
        UsageError: there is no run, its recipe is invalid, or another process holds it.
    """
    path = Path(path)
    recipe = recipe_of(path)
    with held(path, UsageError, "training"):
        yield from _opened(path, recipe)


def recipe_of(path: Path) -> Recipe:
    """The recipe in a run's folder.

    Raises:
        UsageError: there is no run in it, or its recipe is invalid.
    """
    try:
        text = read_text(path / RECIPE)
    except (OSError, UnicodeDecodeError) as error:
        wrong = f"{path} is not the folder of a run (there is no readable {RECIPE} in it)"
        raise UsageError(f"{wrong}; name the run's folder") from error
    try:
        return Recipe.from_json(text)
    except UsageError as error:
        raise UsageError(f"{path / RECIPE}: {error}") from error


def _opened(path: Path, recipe: Recipe) -> Iterator[RunFolder]:
    folder = RunFolder(path, recipe)
    try:
        yield folder
    finally:
        folder.close()


def read_history(path: str | Path) -> RunHistory:
    """Read the history of a run, finished or not, from its folder.

    Raises:
        UsageError: there is no run in it, or a line of its metrics is damaged.
        CheckpointError: a file of its history is damaged.
    """
    path = Path(path)
    recipe = recipe_of(path)
    files = checkpoints.numbered(path / HISTORY, KEPT_SUFFIX)
    kept = {iteration: _snapshot(file) for iteration, file in files.items()}
    _check_alike(files, kept)
    progress = [each for _, each in _reports(path)]
    scales, shifts = (_stacked(list(kept.values()), kind) for kind in (SCALE, SHIFT))
    return RunHistory(recipe, progress, torch.tensor(list(kept), dtype=torch.int64, device="cpu"), scales, shifts)


def snapshots(history: RunHistory) -> list[Snapshot]:
    """The history as a list of snapshots."""
    reports = {progress.iteration: progress for progress in history.progress}
    return [
        Snapshot(
            reports[iteration],
            {name: values[row] for name, values in history.scales.items()},
            {name: values[row] for name, values in history.shifts.items()},
        )
        for row, iteration in enumerate(history.iterations.tolist())
        if iteration in reports
    ]


def _stacked(kept: list[Kept], kind: str) -> dict[str, torch.Tensor]:
    """One kind of tensor of every layer that has it, stacked over time."""
    if not kept:
        return {}
    layers, first = kept[0]
    return {name: torch.stack([tensors[kind + name] for _, tensors in kept]) for name in layers if kind + name in first}


def _snapshot(file: Path) -> Kept:
    """The content of one file of the history."""
    try:
        open_file(file).close()
        with safetensors.safe_open(file, "pt") as content:
            layers = from_json(list[str], (content.metadata() or {})["layers"], "its list of layers", CheckpointError)
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    # For types that NumPy does not have, safetensors and torch raise exceptions of many kinds.
    except (OSError, SafetensorError, CheckpointError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(file) from error
    if any(tensor.ndim != 1 or tensor.dtype not in (torch.float32, torch.float64) for tensor in tensors.values()):
        raise _damaged(file)
    return layers, tensors


def _check_alike(files: Mapping[int, Path], kept: Mapping[int, Kept]) -> None:
    """Refuse a history whose files are of different networks."""
    forms = [(layers, {name: len(tensor) for name, tensor in tensors.items()}) for layers, tensors in kept.values()]
    for form, file in zip(forms, files.values(), strict=True):
        if form != forms[0]:
            raise _damaged(file)


def _damaged(file: Path) -> CheckpointError:
    return CheckpointError(f"{file} is damaged; the run goes on without it once it is deleted")


def _reports(path: Path) -> Iterator[tuple[str, Progress]]:
    """The lines of a run's metrics, and the reports in them.

    Raises:
        UsageError: they cannot be read, or a line other than the last is no report.
    """
    try:
        text = read_text(path / METRICS, errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{path / METRICS} cannot be read: {error.strerror}") from error
    lines = text.rstrip("\n").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            yield line, report_in(line)
        except UsageError as error:
            # A crash may leave an incomplete last line.
            if number < len(lines):
                place = f"{path / METRICS}, line {number}"
                raise UsageError(f"{place}: {error}; delete that line, or take the file from a copy") from error


def report_in(line: str) -> Progress:
    """The report in a line of the metrics.

    Raises:
        UsageError: it is no report.
    """
    return from_json(Progress, line, "the report", UsageError, others_ignored=True)
