"""BatchNorm and bias updates after masking: new running means, running variances and biases."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from slimnet.planning.constants import as_float64

LEAST_LEFT = 0.05
"""The smallest factor on a BatchNorm's variance, since an estimate of zero may be too low."""


class Statistics(NamedTuple):
    """The means and variances `(C,)` of a BatchNorm's input."""

    mean: np.ndarray
    variance: np.ndarray


RUNNING = ("running_mean", "running_var")
"""The names of a BatchNorm's statistics."""


def owned(module: str, tensor: str) -> str:
    """The name of a module's tensor; the module may be the network itself."""
    return f"{module}.{tensor}" if module else tensor


@dataclass(frozen=True)
class Changes:
    """The replaced tensors of a network by name, and the `old` ones."""

    old: Mapping[str, torch.Tensor]
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def update_norm(self, norm: str, alive: np.ndarray, before: Statistics, after: Statistics, calls: int = 1) -> None:
        """Update a BatchNorm's running statistics, where `alive[c]`, by the change from `before` to `after`.

        The mean changes by the difference, the variance by the ratio. The running statistics of a BatchNorm that is
        called several times are averages over its calls, so that each call contributes its fraction.
        """
        mean, variance = (owned(norm, name) for name in RUNNING)
        if mean not in self.old or variance not in self.old:
            return
        share = np.ones_like(before.variance)
        np.divide(after.variance, before.variance, out=share, where=alive & (before.variance > 0))
        self.alter(mean, shift=np.where(alive, after.mean - before.mean, 0) / calls)
        self.alter(variance, factor=np.maximum(share, LEAST_LEFT) ** (1 / calls))

    def alter(self, name: str, factor: np.ndarray | float = 1.0, shift: np.ndarray | float = 0.0) -> None:
        """Replace a tensor by a multiple of it plus an offset, computed in float64; an equal one is not replaced."""
        if np.any(factor != 1) or np.any(shift):
            old = self.tensors.get(name, self.old[name]).detach()
            self.tensors[name] = torch.from_numpy(as_float64(old) * factor + shift).to(old.device, old.dtype)
