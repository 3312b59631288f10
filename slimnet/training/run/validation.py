"""Validation while training: evaluations at even intervals, and the weights of the best one, kept beside the last."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slimnet.errors import CheckpointError, UsageError
from slimnet.storage.field_types import Count, Share
from slimnet.storage.records import build
from slimnet.torch_state.process import torch_threads
from slimnet.training.analysis.metrics import evaluate
from slimnet.training.loop.checkpoint_file import weights_of, write
from slimnet.training.loop.progress import Progress
from slimnet.training.loop.training_run import TrainingRun
from slimnet.training.run.checkpoints import DAMAGED, read
from slimnet.training.run.evaluation_points import EvaluationPoints

BEST = "model_best.pt"
"""The name, in a run's folder, of the weights of the best evaluation so far."""


@dataclass(frozen=True)
class Best:
    """The evaluation with the highest accuracy so far, of several alike the first."""

    iteration: Count
    validation_accuracy: Share


class Validation:
    """Evaluates the network of a run, and keeps the weights of the best evaluation in a file.

    The images are the run's `validation`: those that its recipe holds out, or else the test images. The file has the
    entries of `save_checkpoint` and `validation_accuracy`. It is the record of the best evaluation: a run that resumes
    reads it, so that the two never disagree, wherever a process ended. Nothing here changes what is trained.

    Attributes:
        best: the best evaluation so far; None before the first.
        damaged: the file, renamed, if it could not be read.

    Raises:
        UsageError: `evaluations` is below 0.
    """

    def __init__(self, run: TrainingRun, evaluations: int, path: Path) -> None:
        if evaluations < 0:
            raise UsageError(f"{evaluations} evaluations cannot be; give 0 for none")
        self._run, self._path = run, path
        self._points = EvaluationPoints(run, evaluations)
        self.damaged: tuple[Path, ...] = ()
        self.best = self._read_best()

    def add(self, progress: Progress) -> Progress:
        """The progress with the accuracy of the network, if an evaluation is due.

        Raises:
            CheckpointError: the best weights cannot be written.
        """
        if not self._points.reached():
            return progress
        with torch_threads(self._run.tuning.threads):
            accuracy = evaluate(self._run.model, self._run.validation).top1
        if self.best is None or accuracy > self.best.validation_accuracy:
            self.best = Best(progress.iteration, accuracy)
            self._write_best()
        return replace(progress, validation_accuracy=accuracy, validation_best=self.best.validation_accuracy)

    def _write_best(self) -> None:
        assert self.best is not None
        content = {
            "state_dict": weights_of(self._run.dense_model()),
            "recipe": self._run.recipe.to_json(),
            "iteration": self.best.iteration,
            "validation_accuracy": self.best.validation_accuracy,
        }
        write(self._path, content, CheckpointError)

    def _read_best(self) -> Best | None:
        """The evaluation whose weights are in the file; a damaged file is renamed, as a checkpoint is."""
        if not self._path.exists():
            return None
        try:
            return best_in(read(self._path))
        except CheckpointError:
            self.damaged = (self._path.rename(self._path.with_name(self._path.name + DAMAGED)),)
            return None


def best_in(content: Mapping[str, Any]) -> Best:
    """The evaluation whose weights a file holds.

    Raises:
        CheckpointError: it has no evaluation.
    """
    fields = {name: content.get(name) for name in ("iteration", "validation_accuracy")}
    return build(Best, fields, "the checkpoint is not that of an evaluation", CheckpointError)
