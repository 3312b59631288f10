"""project: set γ and β of dead channels to zero, with all that an optimiser keeps of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from slimnet.shrinking.invariant_set import Channels, InvariantSet
from slimnet.shrinking.optimizer_state import forget
from slimnet.shrinking.projection_change import Change


@dataclass(frozen=True)
class Projection:
    """What was set to zero: positions by the name of γ, and the largest |γ|, |β| and β among them.

    `shifts` names the β of every γ that has one. Names are those of the network, positions those before a cut.
    `change` says how far that moved the network's values, None where its forward does not run in evaluation mode.
    """

    channels: Channels
    shifts: dict[str, str]
    largest_scale: float
    largest_shift: float
    highest_shift: float = 0.0
    change: Change | None = None

    @property
    def count(self) -> int:
        """How many channels it sets to zero."""
        return sum(map(len, self.channels.values()))


@dataclass(frozen=True)
class Projected:
    """All that has been set to zero so far: how many channels, and the largest |γ| and |β| among them."""

    channels: int = 0
    largest_scale: float = 0.0
    largest_shift: float = 0.0

    def __add__(self, other: Projection) -> "Projected":
        return Projected(
            self.channels + other.count,
            max(self.largest_scale, other.largest_scale),
            max(self.largest_shift, other.largest_shift),
        )

    def __str__(self) -> str:
        return (
            f"{self.channels} channels set to zero, of |γ| up to {self.largest_scale:.2g} and |β| up to "
            f"{self.largest_shift:.2g}"
        )


@torch.no_grad()
def project(
    model: nn.Module, optimiser: Optimizer, invariant: InvariantSet, also: Sequence[nn.Module] = ()
) -> Projection:
    """Set γ and β of an invariant set to zero in a network and its copies, with their moments and gradients."""
    sizes, highest = {"scale": 0.0, "shift": 0.0}, -math.inf
    shifts = {name: invariant.shifts[name] for name in invariant.channels if name in invariant.shifts}
    for name, channels in invariant.channels.items():
        pairs = [("scale", name), *([("shift", shifts[name])] if name in shifts else [])]
        for kind, own in pairs:
            parameter = model.get_parameter(own)
            index = list(channels)
            sizes[kind] = max(sizes[kind], float(parameter[index].abs().max()))
            if kind == "shift":
                highest = max(highest, float(parameter[index].max()))
            parameter[index] = 0
            forget(optimiser, parameter, channels)
            for other in also:
                other.get_parameter(own)[index] = 0
    highest = highest if shifts else 0.0
    return Projection(invariant.channels, shifts, sizes["scale"], sizes["shift"], highest)
