"""Shadow: a dense run in parallel to one that shrinks, which shows whether removed channels would have come back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn

from slimnet.surgery.plan import SurgeryPlan
from slimnet.training.analysis.metrics import DEAD_BELOW, batchnorm_scales
from slimnet.training.loop.progress import Progress


class DenseRun(Protocol):
    """The part of a training run that a shadow needs."""

    model: nn.Module

    def advance_to(self, iteration: int) -> None:
        """Take the steps up to an iteration."""

    def state(self) -> dict[str, Any]:
        """Everything needed to resume from here."""


class Shadow:
    """Trains a dense network on the batches of a shrinking run, and watches the γ of the removed channels.

    A channel is watched once it has been removed there and is dead here. If its |γ| reaches the threshold again at a
    later report, it counts as revived: it would have come back, had it not been set to zero. Channels that have not
    been dead here since their removal are not counted: the two runs diverge because of rounding too.

    Attributes:
        run: the dense run; it has the recipe of the shrinking one, without shrinking.
    """

    def __init__(self, run: DenseRun) -> None:
        self.run = run
        scales = {f"{name}.weight": gamma for name, gamma in batchnorm_scales(run.model).items()}
        self._watched = {name: torch.zeros(gamma.numel(), dtype=torch.bool) for name, gamma in scales.items()}
        self._revived = {name: each.clone() for name, each in self._watched.items()}
        self._alive = {name: each.clone() for name, each in self._watched.items()}

    def described(self, progress: Progress) -> Progress:
        """The progress with the numbers of channels that came back here and of those that are alive at this report."""
        alive = (self._revived[name] & each for name, each in self._alive.items())
        return replace(progress, revived=_count(self._revived.values()), revived_alive=_count(alive))

    def follow(self, iteration: int, removed: Mapping[str, tuple[int, ...]]) -> None:
        """Train up to an iteration, and check the γ of the channels that the other run has removed by then.

        `removed` are their positions in the dense network, by the name of γ.
        """
        self.run.advance_to(iteration)
        for name, channels in removed.items():
            is_removed = torch.zeros_like(self._watched[name])
            is_removed[list(channels)] = True
            dead = self.run.model.get_parameter(name).detach().abs().cpu() < DEAD_BELOW
            self._revived[name] |= self._watched[name] & ~dead
            self._watched[name] |= is_removed & dead
            self._alive[name] = ~dead

    def state(self) -> dict[str, Any]:
        """The state for `restore`, including that of the dense run."""
        return {"run": self.run.state(), "watched": self._watched, "revived": self._revived}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the watched channels of a checkpoint; the run itself is created from its own state.

        Raises:
            ValueError: the state is of another network.
        """
        for mine, name in ((self._watched, "watched"), (self._revived, "revived")):
            theirs = state[name]
            if {key: value.shape for key, value in theirs.items()} != {key: each.shape for key, each in mine.items()}:
                raise ValueError("the dense run beside it watched channels of another network")
            mine.update({key: value.to(torch.bool) for key, value in theirs.items()})


def _count(channels: Iterable[torch.Tensor]) -> int:
    return sum(int(each.sum()) for each in channels)


def removed_scales(plan: SurgeryPlan, scales: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The positions of the channels that a plan removes from each of these γ, in the dense network."""
    cuts = {cut.tensor: cut for cut in plan.cuts if cut.tensor in scales}
    return {name: tuple(sorted(set(range(plan.shapes[name][0])) - set(cut.keep))) for name, cut in cuts.items()}
