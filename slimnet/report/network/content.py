"""The content of a network report: plain values, each from an earlier stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from slimnet.benchmark import Comparison, Environment
from slimnet.comparison import Results
from slimnet.surgery.certificate_data import Certificate
from slimnet.surgery.plan import SurgeryPlan
from slimnet.training import Accuracy, Recipe, Snapshot


@dataclass(frozen=True)
class Training:
    """The training of the dense network: its recipe, and snapshots of its progress."""

    recipe: Recipe
    history: Sequence[Snapshot]

    @property
    def iterations(self) -> list[int]:
        """The iteration of each snapshot."""
        return [snapshot.progress.iteration for snapshot in self.history]

    @property
    def losses(self) -> list[float]:
        """Training loss at each snapshot."""
        return [snapshot.progress.loss for snapshot in self.history]

    @property
    def dead(self) -> list[float]:
        """Share of convolution channels dead by γ, 0 to 1, at each snapshot."""
        return [snapshot.progress.sparsity for snapshot in self.history]

    @property
    def gammas(self) -> np.ndarray:
        """|γ| of every channel, `(snapshots, channels)`."""
        rows = [np.concatenate([scale.numpy() for scale in each.scales.values()]) for each in self.history]
        return np.abs(np.stack(rows))

    @property
    def seconds(self) -> float:
        """The duration of the training."""
        return self.history[-1].progress.seconds


@dataclass(frozen=True)
class Report:
    """The content of a page; fields that are None or empty are omitted.

    A report is about a slimmed network (`plan` and `certificate`), about contenders compared with the first of them
    (`comparison`), or about both. `gammas` maps the layers with a BatchNorm to the |γ| of its channels in the dense
    network; `accuracies` are those of the dense and of the slim network on the same test images; `methods` are the
    results of other methods of choosing channels on the dense network.
    """

    title: str
    plan: SurgeryPlan | None
    certificate: Certificate | None
    environment: Environment
    gammas: Mapping[str, Sequence[float]] = field(default_factory=dict)
    accuracies: tuple[Accuracy, Accuracy] | None = None
    comparison: Comparison | None = None
    training: Training | None = None
    methods: Results | None = None

    @property
    def several(self) -> bool:
        """Whether more than two networks were measured."""
        return self.comparison is not None and len(self.comparison.counts) > 2

    @property
    def before_after(self) -> tuple[Accuracy, Accuracy] | None:
        """The accuracies of the first and the last network, if they are known."""
        if self.accuracies is not None or self.comparison is None or not self.comparison.accuracies:
            return self.accuracies
        values = self.comparison.accuracies[0].values
        return values[0], values[-1]
