"""BasicNet, the network with seven convolutions in which Adam with L2 makes filters die (paper, table 1)."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from slimnet.errors import ArchitectureError
from slimnet.models.arguments import hidden_widths, require_below_one, require_positive, require_sizes, scaled
from slimnet.models.vgg import initialise

WIDTHS = {
    "64-1x": (64, 128, 128, 256, 256, 512, 512),
    "64-0.5x": (64, 64, 64, 128, 128, 256, 256),
    "32-0.25x": (32, 32, 32, 64, 64, 128, 128),
}
"""Output channels of C1 to C7, by the names in the paper's table 4."""

HEADS: dict[str, tuple[int, ...]] = {
    "cifar": (256,),
    "tinyimagenet": (512, 256),
    "imagenet": (4096, 2048),
}
"""The hidden layers of the classifier, by the names of the paper's data sets."""

POOL_AFTER = (1, 3, 5)
"""The convolutions that are followed by pooling in our reconstruction; the paper does not print them."""

IMAGENET_IMAGE = 224


class BasicNet(nn.Module):
    """Convolutions C1 to C7, global average pooling, hidden layers and a linear classifier.

    Images `(N, in_channels, H, W)` are mapped to logits `(N, num_classes)`; H and W must be large enough for the
    pooling layers. Every convolution and every hidden layer is followed by BatchNorm and the activation, so that every
    channel except the logits has a γ. The widths determine the paper's 4,649,664 convolution weights; the positions of
    the pooling layers are not printed, and `pool_after` is our reconstruction.

    Args:
        num_classes: logits per image.
        in_channels: channels of an image.
        width: factor on the widths of C1 to C7 (not on `hidden`), rounded, at least one channel each.
        widths: output channels of each convolution, or a name of the paper's table 4.
        hidden: units of the hidden layers before the classifier (one or several), or `cifar` (256),
            `tinyimagenet` (512 and 256) or `imagenet` (4096 and 2048). The last is for 224 × 224 images and
            reads 5 × 5 average pooling with stride 4 instead of the global average.
        pool_after: the convolutions, counted from 1, that are followed by 2×2 max-pooling.
        negative_slope: 0 for ReLU, otherwise the slope of a LeakyReLU.
        dropout: the share, 0 to below 1, of each hidden layer's outputs that is set to zero in training. The paper
            does not mention any.

    Raises:
        ArchitectureError: the widths, the share or the positions of pooling layers are not valid.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        width: float = 1.0,
        widths: Sequence[int] | str = "64-1x",
        hidden: int | Sequence[int] | str = 256,
        pool_after: Sequence[int] = POOL_AFTER,
        negative_slope: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require_positive(num_classes=num_classes, in_channels=in_channels)
        require_below_one(negative_slope=negative_slope, dropout=dropout)
        channels = _scaled(widths, width)
        _check_pools(pool_after, len(channels))
        side = _imagenet_side(frozenset(pool_after)) if hidden == "imagenet" else 1
        units = _hidden(hidden)
        self.features = _features(in_channels, channels, frozenset(pool_after), negative_slope)
        self.pool = nn.AvgPool2d(5, stride=4) if hidden == "imagenet" else nn.AdaptiveAvgPool2d(1)
        self.classifier = _classifier((channels[-1] * side**2, *units), num_classes, negative_slope, dropout)
        self.apply(initialise)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `(N, num_classes)` of images `(N, in_channels, H, W)`."""
        pooled: torch.Tensor = self.pool(self.features(images))
        scores: torch.Tensor = self.classifier(pooled.flatten(1))
        return scores


def _scaled(widths: Sequence[int] | str, factor: float) -> tuple[int, ...]:
    if isinstance(widths, str):
        if widths not in WIDTHS:
            known = ", ".join(WIDTHS)
            raise ArchitectureError(f"there are no widths named {widths!r}; use {known} or a list of numbers")
        widths = WIDTHS[widths]
    require_sizes(widths=widths)
    if not widths:
        raise ArchitectureError("widths must name at least one convolution, got none")
    return scaled(widths, factor)


def _check_pools(pool_after: Sequence[int], convolutions: int) -> None:
    require_sizes(pool_after=pool_after)
    for position in pool_after:
        if position > convolutions:
            raise ArchitectureError(f"cannot pool after C{position}: the last convolution is C{convolutions}")


def _hidden(hidden: int | Sequence[int] | str) -> tuple[int, ...]:
    if isinstance(hidden, int):
        require_positive(hidden=hidden)
        return (hidden,)
    return hidden_widths(hidden, HEADS)


def _imagenet_side(pools: frozenset[int]) -> int:
    """The number of 5 × 5 windows with stride 4 along one side after the pooling layers."""
    plane = IMAGENET_IMAGE >> len(pools)
    if plane < 5:
        raise ArchitectureError(f"the imagenet head averages 5 × 5 pixels, but {len(pools)} poolings leave {plane}")
    return (plane - 5) // 4 + 1


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


def _classifier(widths: tuple[int, ...], num_classes: int, slope: float, dropout: float) -> nn.Sequential:
    """Layers from `widths[0]` features through the hidden `widths[1:]` to logits."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        layers[f"fc{number}"] = nn.Linear(inputs, outputs, bias=False)
        layers[f"bn{number}"] = nn.BatchNorm1d(outputs)
        layers[f"act{number}"] = _activation(slope)
        if dropout:
            layers[f"drop{number}"] = nn.Dropout(dropout)
    layers[f"fc{len(widths)}"] = nn.Linear(widths[-1], num_classes)
    return nn.Sequential(layers)


def _activation(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)
