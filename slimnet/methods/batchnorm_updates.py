"""What a network with silenced channels is told of them: other running means, running variances and biases."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from slimnet.planning.constants import as_float64

LEAST_LEFT = 0.05
"""The smallest share of its variance that a BatchNorm is left with: what is estimated to be nothing may be more."""


class Statistics(NamedTuple):
    """The means and variances `(C,)` of what a BatchNorm reads."""

    mean: np.ndarray
    variance: np.ndarray


RUNNING = ("running_mean", "running_var")
"""What a BatchNorm calls its statistics."""


def owned(module: str, tensor: str) -> str:
    """The name of a module's own tensor, also where the module is the network itself."""
    return f"{module}.{tensor}" if module else tensor


@dataclass(frozen=True)
class Changes:
    """The tensors of a network that are replaced, by name, beside the `old` ones."""

    old: Mapping[str, torch.Tensor]
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def tell(self, norm: str, alive: np.ndarray, before: Statistics, after: Statistics, calls: int = 1) -> None:
        """Let a BatchNorm's own statistics move, where `alive[c]`, by as much as these do.

        The mean moves by a difference, the variance by a factor. One that is called several times has the statistics
        of all calls together, each of which moves its part.
        """
        mean, variance = (owned(norm, name) for name in RUNNING)
        if mean not in self.old or variance not in self.old:
            return
        share = np.ones_like(before.variance)
        np.divide(after.variance, before.variance, out=share, where=alive & (before.variance > 0))
        self.alter(mean, shift=np.where(alive, after.mean - before.mean, 0) / calls)
        self.alter(variance, factor=np.maximum(share, LEAST_LEFT) ** (1 / calls))

    def alter(self, name: str, factor: np.ndarray | float = 1.0, shift: np.ndarray | float = 0.0) -> None:
        """Replace a tensor by a multiple of it and something more, computed in float64; the same stays the same."""
        if np.any(factor != 1) or np.any(shift):
            old = self.tensors.get(name, self.old[name]).detach()
            self.tensors[name] = torch.from_numpy(as_float64(old) * factor + shift).to(old.device, old.dtype)
