"""VGG networks with BatchNorm, as Li et al. 2017, Liu et al. 2017 and Mehta et al. 2019 use them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import nn

from slimnet.errors import ArchitectureError
from slimnet.models.arguments import hidden_widths, require_positive, scaled

STAGES: dict[int, tuple[tuple[int, ...], ...]] = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    13: ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    19: ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512)),
}
"""The widths of the 3×3 convolutions, by depth; every stage is followed by 2×2 max-pooling."""

HEADS: dict[str, tuple[int, ...]] = {
    "cifar": (512,),
    "tinyimagenet": (512, 256),
    "linear": (),
    "imagenet": (4096, 4096),
}
"""The hidden layers of the classifier, by name."""

IMAGENET_SIDE = 7
"""The ImageNet head reads a 7 × 7 adaptive average of every channel: the complete plane of a 224 × 224 image."""


class VGG(nn.Module):
    """The convolutions of VGG-11, 13, 16 or 19 with BatchNorm, averaged over the plane, and a classifier.

    `hidden` holds the widths of the classifier's hidden linear layers, each with BatchNorm and ReLU, or is a name:

    * `cifar`, the default: one layer of 512 (Li et al. 2017; Mehta et al. 2019). With 10 classes and 32 × 32
      images VGG-16 has 313,463,808 MACs (3.13e8 in Li's table 1) and 14,987,722 parameters (1.5e7). This is without
      biases of the 3×3 convolutions, with γ and β of all BatchNorms, and with the biases of both linear layers.
    * `tinyimagenet`: 512 and 256 (Mehta et al. 2019).
    * `linear`: none (Network Slimming; Liu et al. 2017, table 1). VGG-19 has 20,035,018 parameters with 10
      classes and 20,081,188 with 100 (20.04 M and 20.08 M in the table), and 398,136,320 MACs with 10. The
      table's 7.97e8 FLOPs are 2 × (MACs + one multiply-add for each of the 303,104 values that BatchNorm
      normalises).
    * `imagenet`: VGG's classifier, 4096 and 4096 with ReLU and dropout but no BatchNorm, on the 7 × 7 plane
      of 224 × 224 images. With 1000 classes VGG-11 has 132,866,088 parameters (Liu's table 2: 132.9 M) and
      7,609,090,048 MACs (their 4.57e10 FLOPs is 6 × that).

    `width` is a factor on the widths of the convolutions, rounded, at least one channel each.

    Raises:
        ArchitectureError: the depth is not one of VGG's, or a size is not valid.
    """

    def __init__(
        self,
        depth: int = 16,
        num_classes: int = 10,
        hidden: Sequence[int] | str = (512,),
        in_channels: int = 3,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        require_positive(depth=depth, num_classes=num_classes, in_channels=in_channels)
        if depth not in STAGES:
            raise ArchitectureError(f"depth must be one of {', '.join(map(str, STAGES))}, got {depth!r}")
        widths = hidden_widths(hidden, HEADS)
        stages = [scaled(stage, width) for stage in STAGES[depth]]
        channels = stages[-1][-1]
        self.features = nn.Sequential(*convolutions(stages, in_channels))
        if hidden == "imagenet":
            self.pool = nn.AdaptiveAvgPool2d(IMAGENET_SIDE)
            self.classifier = nn.Sequential(*imagenet_head((channels * IMAGENET_SIDE**2, *widths), num_classes))
        else:
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.classifier = nn.Sequential(*head((channels, *widths), num_classes))
        self.apply(initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images `(N, in_channels, H, W)`, at least 32 × 32, to logits `(N, num_classes)`."""
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


def convolutions(stages: Sequence[Sequence[int]], in_channels: int) -> Iterator[nn.Module]:
    """The layers of `features` in order."""
    for stage in stages:
        for width in stage:
            yield nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
            yield nn.BatchNorm2d(width)
            yield nn.ReLU()
            in_channels = width
        yield nn.MaxPool2d(2)


def head(widths: Sequence[int], num_classes: int) -> Iterator[nn.Module]:
    """The layers of `classifier`: from `widths[0]` features through the hidden `widths[1:]` to classes."""
    for before, after in pairwise(widths):
        yield nn.Linear(before, after)
        yield nn.BatchNorm1d(after)
        yield nn.ReLU()
    yield nn.Linear(widths[-1], num_classes)


def imagenet_head(widths: Sequence[int], num_classes: int) -> Iterator[nn.Module]:
    """The classifier of the original network: with dropout where `head` has BatchNorm."""
    for before, after in pairwise(widths):
        yield nn.Linear(before, after)
        yield nn.ReLU()
        yield nn.Dropout()
    yield nn.Linear(widths[-1], num_classes)


def initialise(module: nn.Module) -> None:
    """Xavier initialisation with ReLU's gain, as in Mehta et al. 2019; biases are 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight, gain=nn.init.calculate_gain("relu"))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
