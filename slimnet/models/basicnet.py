"""BasicNet, the seven-convolution network on which the paper shows that Adam with L2 kills filters."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from slimnet.errors import ArchitectureError
from slimnet.models.arguments import require_positive
from slimnet.models.vgg import initialise

WIDTHS = {
    "64-1x": (64, 128, 128, 256, 256, 512, 512),
    "64-0.5x": (64, 64, 64, 128, 128, 256, 256),
    "32-0.25x": (32, 32, 32, 64, 64, 128, 128),
}
"""Output channels of C1 to C7 under the names the paper's table 4 gives them."""


class BasicNet(nn.Module):
    """Convolutions C1 to C7, global average pooling, a hidden layer and a linear classifier.

    Images `(N, in_channels, H, W)` become scores `(N, num_classes)`; any size that survives the
    poolings will do. BatchNorm and the activation follow every convolution and the hidden layer,
    so every channel but the scores has a γ. The widths alone fix the paper's 4,649,664 convolution
    weights; where it pools is not printed, and `pool_after` is our reconstruction.

    Args:
        num_classes: scores per image.
        in_channels: channels of an image.
        width: factor on the widths of C1 to C7 (not on `hidden`), rounded, at least one channel each.
        widths: output channels of each convolution, or a name of the paper's table 4.
        hidden: units of the fully connected layer before the classifier.
        pool_after: the convolutions, counted from 1, that a 2×2 max-pooling follows.
        negative_slope: 0 for ReLU, otherwise the slope of a LeakyReLU.

    Raises:
        ArchitectureError: widths or pool positions that make no network.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        width: float = 1.0,
        widths: Sequence[int] | str = "64-1x",
        hidden: int = 256,
        pool_after: Sequence[int] = (1, 3, 5),
        negative_slope: float = 0.0,
    ) -> None:
        super().__init__()
        require_positive(num_classes=num_classes, in_channels=in_channels, hidden=hidden)
        channels = _scaled(widths, width)
        _check_pools(pool_after, len(channels))
        self.features = _features(in_channels, channels, frozenset(pool_after), negative_slope)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(channels[-1], hidden, bias=False),
                bn1=nn.BatchNorm1d(hidden),
                act1=_activation(negative_slope),
                fc2=nn.Linear(hidden, num_classes),
            )
        )
        self.apply(initialise)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores `(N, num_classes)` of images `(N, in_channels, H, W)`."""
        pooled: torch.Tensor = self.pool(self.features(images))
        scores: torch.Tensor = self.classifier(pooled.flatten(1))
        return scores


def _scaled(widths: Sequence[int] | str, factor: float) -> tuple[int, ...]:
    if isinstance(widths, str):
        if widths not in WIDTHS:
            known = ", ".join(WIDTHS)
            raise ArchitectureError(f"there are no widths named {widths!r}; use {known} or a list of numbers")
        widths = WIDTHS[widths]
    if not 0 < factor < math.inf:
        raise ArchitectureError(f"width must be a factor above 0, got {factor!r}")
    for channels in widths:
        require_positive(widths=channels)
    if not widths:
        raise ArchitectureError("widths must name at least one convolution, got none")
    return tuple(max(1, round(factor * channels)) for channels in widths)


def _check_pools(pool_after: Sequence[int], convolutions: int) -> None:
    for position in pool_after:
        require_positive(pool_after=position)
        if position > convolutions:
            raise ArchitectureError(f"cannot pool after C{position}: the last convolution is C{convolutions}")


def _features(in_channels: int, widths: tuple[int, ...], pool_after: frozenset[int], slope: float) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (inputs, outputs) in enumerate(pairwise((in_channels, *widths)), start=1):
        size = 5 if number == 1 else 3
        layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
        layers[f"bn{number}"] = nn.BatchNorm2d(outputs)
        layers[f"act{number}"] = _activation(slope)
        if number in pool_after:
            layers[f"pool{number}"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


def _activation(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)
