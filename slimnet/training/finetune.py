"""Fine-tuning: train a network briefly after the removal of channels, by the same recipe for every method."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimnet.data import ImageData
from slimnet.errors import CheckpointError, UsageError
from slimnet.storage.field_types import Count, Share
from slimnet.storage.records import build
from slimnet.training.analysis.metrics import evaluate
from slimnet.training.loop.progress import Progress
from slimnet.training.loop.training_run import TrainingRun
from slimnet.training.recipe.machine_settings import Tuning
from slimnet.training.recipe.recipe import Recipe
from slimnet.training.run import checkpoints
from slimnet.training.run.checkpoint_times import CheckpointTimes, Interval
from slimnet.training.run.evaluation_points import EvaluationPoints

EVALUATIONS = 4
"""The number of evaluations during fine-tuning, evenly spaced; the last one is at the end."""

DUST = 1e-12
"""Weights below this are remainders of dead filters, which vanish in any float32 sum with live ones."""

RETRAINING: dict[str, Any] = {"optimiser": "sgd", "lr": 1e-3, "momentum": 0.9, "l2": 1e-4, "batch_size": 128}
"""Li et al.'s retraining (section 4): SGD at a constant 1e-3; momentum, L2 and batch size are He et al.'s."""


@dataclass(frozen=True)
class Point:
    """The error, 0..1, on the test images after a number of iterations of fine-tuning."""

    iteration: Count
    error: Share


def retraining(arch: str, data: str, iterations: int, **changes: Any) -> Recipe:
    """The recipe of Li et al.'s retraining over this many iterations, with the given changes.

    `arch` is only a name: a recipe cannot build a slim network.

    Raises:
        UsageError: a value is out of its range.
    """
    if changes.get("optimiser", "sgd") != "sgd":
        # Another optimiser has other settings.
        changes = {"lr": None, "momentum": None} | changes
    return Recipe(arch=arch, data=data, iterations=iterations, **RETRAINING | changes)


def sparsifying(arch: str, data: str, iterations: int, l1_gamma: float, **changes: Any) -> Recipe:
    """The recipe of Network Slimming's training with L1 on γ, for a network that has been trained before.

    Liu et al. 2017 (section 4.3) train from random weights at a learning rate of 0.1, with λ of 1e-4 on CIFAR. γ
    changes by at most λ times the sum of all learning rates over 1 − momentum. The rate therefore starts high here
    too, at 0.02, with a cosine schedule.

    Raises:
        UsageError: a value is out of its range.
    """
    return retraining(arch, data, iterations, **{"lr": 0.02, "cosine": True, "l1_gamma": l1_gamma} | changes)


@torch.no_grad()
def without_dust(model: nn.Module) -> nn.Module:
    """A copy in which weights and statistics below 1e-12 are exactly zero.

    A dead channel that a slim network keeps because of its constant has a filter of such numbers. If its γ is 0 too,
    all of it then stays 0 during further training; otherwise both would grow from rounding errors to numbers whose
    products are denormal, which slow CPUs down several times.
    """
    cleaned = copy.deepcopy(model)
    for tensor in cleaned.state_dict().values():
        if tensor.is_floating_point():
            tensor[tensor.abs() < DUST] = 0
    return cleaned


class Finetuning(Iterator[Progress]):
    """Further training of a copy of a network: iterate over it as over a `TrainingRun`, then take `model`.

    Remainders of dead filters are set to exactly zero first: see `without_dust`.

    In a `folder` it stores a checkpoint at every evaluation and at an `interval`, by default of a minute, and resumes
    from the newest one there; `save` stores one at any time. With `keep_best` the weights of the evaluation with the
    lowest error so far, of several alike the first, are kept.

    Attributes:
        run: the training run.
        course: the error at each evaluation so far.
        best: those weights, as a state dict on the CPU; None before the first evaluation, and without `keep_best`.

    Raises:
        DataError: the network does not take the data.
        UsageError: the folder holds the checkpoint of another recipe, or `evaluations` is below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        data: ImageData,
        *,
        evaluations: int = EVALUATIONS,
        keep_best: bool = False,
        folder: Path | None = None,
        interval: Interval | None = None,
        threads: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if evaluations < 1:
            raise UsageError(f"{evaluations} evaluations of a fine-tuned network say nothing; there must be at least 1")
        found = checkpoints.newest(folder) if folder is not None else None
        state = found.state if found else None
        interval = interval or Interval()
        self.run = TrainingRun(
            recipe,
            data,
            device=device,
            patience=interval.seconds,
            tuning=Tuning(threads=threads),
            model=without_dust(model),
            state=state,
        )
        self.course = course_in(state) if state else []
        self.best: dict[str, torch.Tensor] | None = state.get("best") if state else None
        self._keep_best = keep_best
        self._points = EvaluationPoints(self.run, evaluations)
        self._times = CheckpointTimes(interval, self.run.iteration if state else -1)
        self._folder = folder

    @property
    def model(self) -> nn.Module:
        """The current network."""
        return self.run.model

    def __next__(self) -> Progress:
        """Train until the next report, and evaluate and save if that is due.

        Raises:
            StopIteration: the recipe's iterations are done.
            DivergedError: the loss is no longer finite.
            SlimnetError: the disk refuses a checkpoint.
        """
        progress = next(self.run)
        if self._points.reached():
            error = 1 - evaluate(self.run.model, self.run.data).top1
            if self._keep_best and all(error < point.error for point in self.course):
                state = self.run.model.state_dict()
                self.best = {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
            self.course.append(Point(progress.iteration, error))
            self.save()
        elif self._times.due(self.run.iteration):
            self.save()
        return progress

    def save(self) -> None:
        """Store a checkpoint, from which a later call goes on bit for bit, unless there is one of this iteration.

        Raises:
            SlimnetError: the disk refuses it.
        """
        if self._folder is None or self._times.saved == self.run.iteration:
            return
        with self._times.saving(self.run.iteration):
            course = [[point.iteration, point.error] for point in self.course]
            best = {} if self.best is None else {"best": self.best}
            checkpoints.save(self._folder, self.run.state() | {"course": course} | best)


def course_in(state: Mapping[str, Any]) -> list[Point]:
    """The error curve in the checkpoint of a fine-tuning.

    Raises:
        CheckpointError: it is not the checkpoint of a fine-tuning.
    """
    where = "the checkpoint is not that of a fine-tuning: its course"
    pairs = build(tuple[tuple[Count, Share], ...], state.get("course"), where, CheckpointError)
    return [Point(*pair) for pair in pairs]
