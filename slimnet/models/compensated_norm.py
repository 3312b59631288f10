"""LayerNorm over fewer channels: what removed constants contributed to its mean and variance is added back.

The channels of a LayerNorm share their statistics, so that even a constant one cannot simply be left out. A removed
constant adds the same to the sums over all channels for every input, though. With K removed constants of mean m, whose
squared deviations from m sum up to s, among C channels, for the others x:

    μ = (Σ x + K · m) / C        σ² = (Σ (x − μ)² + K · (m − μ)² + s) / C

which is what the dense LayerNorm computes. Such layers are made by `apply_plan` alone.
"""

import torch
from torch import nn

from slimnet.errors import PlanError

CHANNELS_LAST = frozenset({"torch.nn.modules.normalization.LayerNorm", "timm.layers.norm.LayerNorm"})
"""The classes of LayerNorms over the last axis, by their full names."""

CHANNELS_SECOND = frozenset({"torchvision.models.convnext.LayerNorm2d", "timm.layers.norm.LayerNorm2d"})
"""Those over the axis 1 of images `(N, C, H, W)`."""


class CompensatedLayerNorm(nn.LayerNorm):
    """A LayerNorm over the last axis whose `total` channels include some that were removed.

    `removed_mean` is the mean of their constants, `removed_spread` the sum of their squared deviations from it.
    """

    total: int
    removed_mean: float
    removed_spread: float

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise `(..., C)`; numbers in half precision are computed with in single precision, as by torch."""
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        removed = self.total - self.normalized_shape[0]
        mean = (x.sum(-1, keepdim=True) + removed * self.removed_mean) / self.total
        centred = x - mean
        squares = (centred * centred).sum(-1, keepdim=True) + removed * (self.removed_mean - mean) ** 2
        result = centred * torch.rsqrt((squares + self.removed_spread) / self.total + self.eps)
        result = result if self.weight is None else result * self.weight
        result = result if self.bias is None else result + self.bias
        return result.to(input.dtype)

    def extra_repr(self) -> str:
        """As that of a LayerNorm, with the number of channels before the surgery."""
        return f"{super().extra_repr()}, total={self.total}"


class CompensatedLayerNorm2d(CompensatedLayerNorm):
    """A `CompensatedLayerNorm` over the channels of images `(N, C, H, W)`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise `(N, C, H, W)` over C."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


def compensated_class(module: nn.Module | None) -> type[CompensatedLayerNorm] | None:
    """The class of a LayerNorm without some of its channels; None for other modules, also for unknown LayerNorms."""
    name = f"{type(module).__module__}.{type(module).__qualname__}"
    if not isinstance(module, nn.LayerNorm) or len(module.normalized_shape) != 1:
        return None
    if name in CHANNELS_LAST:
        return CompensatedLayerNorm
    return CompensatedLayerNorm2d if name in CHANNELS_SECOND else None


def compensate(module: nn.Module, path: str, total: int, mean: float, spread: float) -> None:
    """Make a LayerNorm whose tensors have been cut one with the statistics of all its `total` channels.

    Raises:
        PlanError: the module is no LayerNorm of which that is known.
    """
    found = compensated_class(module)
    if found is None:
        raise PlanError(f"the plan removes channels of {path or 'the network'}, which is not a LayerNorm")
    module.__class__ = found
    vars(module).update(total=total, removed_mean=mean, removed_spread=spread)
