"""Shrinking during training: dead channels are removed every `shrink_every` iterations, and still count as dead."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from slimnet.data import ImageData
from slimnet.errors import CheckpointError, SlimnetError
from slimnet.shrinking.dense_shape import DenseShape
from slimnet.shrinking.projection_record import ProjectionRecord
from slimnet.shrinking.shrinker import Shrinker
from slimnet.training.analysis.metrics import batchnorm_scales, count_by_gamma
from slimnet.training.loop.checkpoint_file import weights_of
from slimnet.training.loop.distributed import Ranks
from slimnet.training.loop.progress import Progress, Snapshot
from slimnet.training.loop.shadow import removed_scales
from slimnet.training.loop.step import Step
from slimnet.training.recipe.recipe import Recipe

EXAMPLES = 16
"""Training images that changes are measured on: twice forward costs less than a cut does."""


class Shrinking:
    """Removes dead channels during a run if its recipe shrinks, and reports them.

    `shrinker` is None in a run that does not shrink; then the network keeps its widths. Processes that train together
    remove the same channels, since their γ and β are the same. `projections` is the record of what was
    set to zero; None where it does not shrink, or where a checkpoint of an earlier slimnet has no record of its cuts.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, step: Step, data: ImageData, ranks: Ranks) -> None:
        self._every, self._model, self._step, self._ranks = recipe.shrink_every, model, step, ranks
        # Rounded widths are made exact after the last step, also where a finished run was then made longer.
        ends = {recipe.iterations, *(until for until, length in recipe.lengths_before if until == length)}
        self._exact_at = ends if recipe.shrink_round > 1 else set()
        self._channels = count_by_gamma(model)[1]
        self._scales = tuple(f"{name}.weight" for name in batchnorm_scales(model))
        self._shape: DenseShape | None = None
        self.shrinker: Shrinker | None = None
        self.projections: ProjectionRecord | None = None
        if recipe.shrink_every:
            examples = next(data.sample(EXAMPLES)).to(next(model.parameters()).device)
            self.shrinker = found = Shrinker(model, step.optimiser, examples, round_to=recipe.shrink_round)
            self.projections = ProjectionRecord(found.threshold, found.largest_shift, found.patience, len(examples))

    def look(self, iteration: int) -> bool:
        """Whether a check is due after this many steps and finds channels that have been dead for long enough."""
        if self.shrinker is None:
            return False
        is_last = iteration in self._exact_at
        if iteration % self._every:
            return is_last
        return self._ranks.any(self.shrinker.look()) or is_last

    def cut(self, iteration: int) -> bool:
        """Remove channels that have been dead for long enough; returns whether there were any.

        The network must not be wrapped meanwhile. `iteration` is recorded.

        Raises:
            SlimnetError: as `Shrinker.cut`, or processes that train together would remove different channels.
        """
        assert self.shrinker is not None
        before = self.shrinker.plan
        cut = self.shrinker.finish() if iteration in self._exact_at else self.shrinker.cut()
        plans = self._ranks.gathered(None if cut is None else cut.plan.to_json())
        if len(set(plans)) > 1:
            raise SlimnetError(
                "the processes of this run have different γ, and would remove different channels; "
                "resume it from its last checkpoint"
            )
        if cut is None:
            return False
        if self.projections is not None:
            self.projections = self.projections.after(iteration, cut.projection, before)
        self._step.cut(cut.plan)
        self._follow()
        return True

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as a part of a checkpoint; empty where the run does not shrink."""
        if self.shrinker is None:
            return {}
        record = None if self.projections is None else self.projections.to_json()
        return {"shrinker": {**self.shrinker.state_dict(), "projections": record}}

    def restore(self, state: dict[str, Any]) -> None:
        """Apply the stored plan to the dense network with restored weights; its optimiser is restored afterwards."""
        if self.shrinker is None:
            return
        self.shrinker.load_state_dict(state)
        if state.get("projections") is not None:
            where = "the checkpoint's record of what was set to zero"
            self.projections = ProjectionRecord.from_json(state["projections"], where, CheckpointError)
        elif self.shrinker.plan is not None:
            self.projections = None
        if self.shrinker.plan is not None:
            self._step.cut(self.shrinker.plan)
            self._follow()

    def _follow(self) -> None:
        assert self.shrinker is not None
        assert self.shrinker.plan is not None
        self._shape = DenseShape(self.shrinker.plan)

    def weights(self) -> dict[str, torch.Tensor]:
        """The network's state dict in the shapes of the recipe's network: removed channels are zeros."""
        return weights_of(self._model) if self._shape is None else self._shape.weights(self._model)

    def removed(self) -> dict[str, tuple[int, ...]]:
        """The positions of the removed channels in the dense network, by the name of γ."""
        plan = None if self.shrinker is None else self.shrinker.plan
        return {} if plan is None else removed_scales(plan, self._scales)

    def sparsity(self) -> float:
        """Share, 0..1, of the initial convolution channels that are dead by γ or removed."""
        dead, present = count_by_gamma(self._model)
        return (dead + self._channels - present) / self._channels if self._channels else 0.0

    def described(self, progress: Progress) -> Progress:
        """The progress with the number of removed channels and the remaining MACs."""
        plan = None if self.shrinker is None else self.shrinker.plan
        if plan is None:
            return progress
        macs, left = plan.macs_before, plan.macs_after
        moved = None if self.projections is None else self.projections.received
        return replace(
            progress, channels_removed=plan.removed_channels, macs=macs, macs_left=left, projection_change=moved
        )

    def snapshot(self, progress: Progress) -> Snapshot:
        """γ and β in the shapes of the dense network, so that all snapshots of a history have the same shapes."""
        found = Snapshot.of(self._model, progress)
        shape = self._shape
        if shape is None:
            return found
        scales = {name: shape.widen(f"{name}.weight", value) for name, value in found.scales.items()}
        shifts = {name: shape.widen(f"{name}.bias", value) for name, value in found.shifts.items()}
        return Snapshot(progress, scales, shifts)
