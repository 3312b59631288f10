"""TrainingRecord: the content of the report of a training run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from slimnet.training import Accuracy, Progress, Recipe
from slimnet.training.analysis.metrics import DEAD_BELOW
from slimnet.training.analysis.universality import Analysis, LayerAnalysis
from slimnet.training.run.savings import step_times

if TYPE_CHECKING:
    from slimnet.training.run.run_folder import RunHistory


@dataclass(frozen=True, eq=False)
class TrainingRecord:
    """The history of a run, and the analysis of its network; fields that are None or empty are omitted in the report.

    `TrainingRecord.of` creates it from a `RunHistory`, the result of `read_history(folder)`.

    Attributes:
        recipe: the recipe of the run.
        progress: at least one report, in order.
        kept_at: the iterations of the snapshots of γ and β, `(T,)`.
        gammas: γ of every BatchNorm by its path, in module order, `(T, channels)`.
        betas: β of every BatchNorm that has it, likewise.
        analysis: sparsity by activation and universality of the trained network.
        accuracy: the accuracy of the trained network on the test images.
    """

    recipe: Recipe
    progress: Sequence[Progress]
    kept_at: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    gammas: Mapping[str, np.ndarray] = field(default_factory=dict)
    betas: Mapping[str, np.ndarray] = field(default_factory=dict)
    analysis: Analysis | None = None
    accuracy: Accuracy | None = None

    @classmethod
    def of(
        cls, history: "RunHistory", analysis: Analysis | None = None, accuracy: Accuracy | None = None
    ) -> "TrainingRecord":
        """The record of a run from its folder, and from measurements of its network."""
        return cls(
            recipe=history.recipe,
            progress=tuple(history.progress),
            kept_at=history.iterations.numpy(),
            gammas=_arrays(history.scales),
            betas=_arrays(history.shifts),
            analysis=analysis,
            accuracy=accuracy,
        )

    @property
    def last(self) -> Progress:
        """The last report."""
        return self.progress[-1]

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return self.last.iteration >= self.last.total

    @property
    def iterations(self) -> list[int]:
        """The iteration of each report."""
        return [each.iteration for each in self.progress]

    @property
    def losses(self) -> list[float]:
        """Training loss at each report."""
        return [each.loss for each in self.progress]

    @property
    def errors(self) -> list[float]:
        """Training error, 0..1, between each report and the preceding one."""
        return [1 - each.accuracy for each in self.progress]

    @property
    def validation(self) -> tuple[list[int], list[float]]:
        """The iterations at which the run was validated, and the errors, 0..1, on its validation images."""
        known = [(each.iteration, each.validation_accuracy) for each in self.progress]
        seen = [(iteration, accuracy) for iteration, accuracy in known if accuracy is not None]
        return [iteration for iteration, _ in seen], [1 - accuracy for _, accuracy in seen]

    @property
    def sparsity(self) -> list[float]:
        """Share, 0..1, of convolution channels dead by γ at each report."""
        return [each.sparsity for each in self.progress]

    @property
    def forecasts(self) -> list[Progress]:
        """The reports with a forecast of the MACs after slimming."""
        return [each for each in self.progress if each.macs and each.macs_if_slimmed is not None]

    @property
    def shrinks(self) -> bool:
        """Whether dead channels were removed during the training."""
        return any(each.macs_left is not None for each in self.progress)

    @property
    def pace(self) -> tuple[np.ndarray, np.ndarray]:
        """The time of a step in milliseconds, `(P,)`, and the iterations at which it was measured."""
        return step_times(self.progress)

    @property
    def macs_left(self) -> tuple[list[int], list[int]]:
        """Iterations, and the multiply-accumulates of the network at each; none before the first cut."""
        known = [each for each in self.progress if each.macs_left is not None]
        return [each.iteration for each in known], [each.macs_left or 0 for each in known]

    @property
    def drops(self) -> list[int]:
        """The iterations up to the last report at which the learning rate dropped."""
        return [drop for drop in self.recipe.drops if drop < self.last.iteration]

    @property
    def layers(self) -> list[str]:
        """The BatchNorms of convolutions in module order; all BatchNorms if there is no analysis."""
        norms = {layer.norm for layer in self.analysis.layers} if self.analysis else set()
        return [name for name in self.gammas if name in norms] if norms & set(self.gammas) else list(self.gammas)

    @property
    def alive(self) -> dict[str, tuple[int, int]]:
        """For each of `layers` the number of channels, and of those that are alive by γ at the end."""
        last = {name: np.abs(self.gammas[name][-1]) for name in self.layers if len(self.gammas[name])}
        return {name: (gamma.size, int((gamma >= DEAD_BELOW).sum())) for name, gamma in last.items()}

    @property
    def dead(self) -> dict[str, np.ndarray]:
        """The share, 0..1, of each layer's channels that are dead by γ at each snapshot, `(T,)`."""
        return {name: (np.abs(self.gammas[name]) < DEAD_BELOW).mean(1) for name in self.layers}

    def analysed(self, norm: str) -> LayerAnalysis | None:
        """The analysis of the layer that a BatchNorm normalises."""
        return next((layer for layer in self.analysis.layers if layer.norm == norm), None) if self.analysis else None

    def name_of(self, norm: str) -> str:
        """The name of the layer that a BatchNorm normalises: that of its convolution if it is known."""
        found = self.analysed(norm)
        return found.layer if found else norm


def _arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}
