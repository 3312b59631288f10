"""A resumable run: metrics, history and checkpoints in a folder."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from slimnet.errors import CheckpointError
from slimnet.training.loop.checkpoint_file import save_checkpoint
from slimnet.training.loop.distributed import ALONE, Ranks
from slimnet.training.loop.progress import Progress
from slimnet.training.loop.resume_checks import refuse_other_beginning
from slimnet.training.loop.training_run import DivergedError, TrainingRun
from slimnet.training.recipe.recipe import Recipe
from slimnet.training.run.checkpoint_times import CheckpointTimes, Interval
from slimnet.training.run.checkpoints import Found, read
from slimnet.training.run.images_file import refuse_other_images, write_images
from slimnet.training.run.run_folder import CHECKPOINTS, MODEL, RunFolder, read_history, snapshots
from slimnet.training.run.sessions import Session
from slimnet.training.run.slimming_forecast import Forecaster
from slimnet.training.run.validation import BEST, Validation

FIRST_REPORTS = 11
"""How many of a run's first reports say how long its steps took at first."""

State = Mapping[str, Any]


class KeptRun(Iterator[Progress]):
    """A training run in its folder: iterate over it as over the run itself, then `close` it.

    Reports are written to the metrics, snapshots to the history, and checkpoints at intervals. The run resumes from
    the newest readable checkpoint in the folder, if there is one; its result is then bitwise the same as without an
    interruption.

    `folder` is None in all but the first of the processes that train together. `begin` creates the run from a state, or
    a new one from None. The network is evaluated `evaluations` times, evenly spread, and the weights of the best
    evaluation are kept beside those of the end; what is trained does not depend on it.

    Attributes:
        run: the run.
        validation: its evaluations; None in all but the first process.
        begun_as: the recipe that its folder had, where this process changed its length or the place of its data.
        damaged: damaged checkpoints, because of which the run resumed from an earlier one.
        first_reports: the first reports of earlier processes.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        begin: Callable[[State | None], TrainingRun],
        *,
        ranks: Ranks = ALONE,
        interval: Interval | None = None,
        evaluations: int = 0,
    ) -> None:
        self._folder = folder
        found = folder.checkpoint() if folder else None
        self.damaged = found.damaged if found else ()
        self.begun_as: Recipe | None = None
        self.first_reports: tuple[Progress, ...] = ()
        try:
            self.run = begin(shared(found, ranks))
        except CheckpointError as error:
            raise CheckpointError(f"{found.path}: {error}" if found else str(error)) from error
        self._times = CheckpointTimes(interval or Interval(), self.run.iteration if found else -1)
        self._forecaster = Forecaster(self.run)
        self.validation = Validation(self.run, evaluations, folder.path / BEST) if folder else None
        if folder is not None:
            # Checked here too, since without a checkpoint nothing else compares them.
            refuse_other_beginning(folder.recipe, self.run.recipe, self.run.iteration)
            if found is None and folder.recipe.data != self.run.recipe.data:
                refuse_other_images(folder.path, self.run.data)
            if folder.recipe != self.run.recipe:
                self.begun_as = folder.recipe
                folder.change(self.run.recipe)
            write_images(folder.path, self.run.data.spec)
            folder.forget_after(self.run.iteration)
            folder.add_session(Session.of(self.run, evaluations))
            history = read_history(folder.path)
            self.run.history[:] = snapshots(history)
            self.first_reports = tuple(history.progress[:FIRST_REPORTS])

    @property
    def recipe(self) -> Recipe:
        """Its recipe."""
        return self.run.recipe

    def __next__(self) -> Progress:
        """Train until the next report, and store what is due.

        Raises:
            StopIteration: as `TrainingRun`.
            DivergedError: loss or weights are no longer finite; the checkpoints are from before.
            SlimnetError: the disk is full, or another process has ended.
        """
        known = len(self.run.history)
        try:
            progress = next(self.run)
        except DivergedError as error:
            raise DivergedError(f"{error}{self._advice()}") from error
        if self._folder is not None and self.validation is not None:
            progress = self.validation.add(self._forecaster.add(progress))
            self._folder.report(progress)
            for snapshot in self.run.history[known:]:
                self._folder.remember(snapshot)
        if self.run.ranks.first_says(self._times.due(self.run.iteration)):
            self.save()
        return progress

    def save(self) -> None:
        """Write a checkpoint of the current state, unless there is one; all processes must call it.

        Raises:
            DivergedError: a weight is no longer finite.
            SlimnetError: it cannot be written.
        """
        if self._times.saved != self.run.iteration:
            with self._times.saving(self.run.iteration):
                self._write(self.run.state())

    def _write(self, state: State) -> None:
        broken = [name for name, value in state["state_dict"].items() if not _is_finite(value)]
        if broken:
            raise DivergedError(
                f"{broken[0]} is no longer finite at iteration {self.run.iteration}; "
                f"train with a learning rate below {self.run.recipe.lr:g}{self._advice()}"
            )
        if self._folder is not None:
            self._folder.save(state)

    def close(self) -> Path | None:
        """Write the last checkpoint and, if the run is finished, its model; returns its path in the first process.

        Raises:
            DivergedError, SlimnetError: as `save`.
        """
        self.save()
        if self._folder is None or self.run.iteration < self.run.recipe.iterations:
            return None
        return save_checkpoint(self.run.dense_model(), self._folder.path / MODEL, self.run.recipe, self.run.iteration)

    def _advice(self) -> str:
        """Advice after a run has diverged."""
        if self._folder is None or self._times.saved < 1:
            return ""
        newest = self._folder.path / CHECKPOINTS / f"{self._times.saved:08d}.pt"
        return f". {newest} is from before: another run can start from it"


def shared(found: Found | None, ranks: Ranks) -> State | None:
    """The state that the first process found, in all processes; each reads the file itself."""
    path = ranks.as_first(found.path if found else None)
    if path is None or found is not None:
        return found.state if found else None
    return read(path)


def _is_finite(value: torch.Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())
