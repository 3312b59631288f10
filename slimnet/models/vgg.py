"""VGG networks with BatchNorm for 32 × 32 images, as Li et al. 2017 and Mehta et al. 2019 use them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import nn

from slimnet.errors import ArchitectureError
from slimnet.models.arguments import require_positive

STAGES: dict[int, tuple[tuple[int, ...], ...]] = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    13: ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    19: ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512)),
}
"""The widths of the 3×3 convolutions by depth; a 2×2 max-pooling follows every stage."""


class VGG(nn.Module):
    """The convolutions of VGG-11, 13, 16 or 19 with BatchNorm, averaged over the plane, and a small head.

    `hidden` holds the widths of the head's hidden linear layers, each with BatchNorm and ReLU. The default
    `(512,)` is the CIFAR head of Li et al. 2017: with 10 classes VGG-16 then has 313,463,808 MACs (3.13e8 in
    their table 1) and 14,987,722 parameters (1.5e7). That number comes out when the 3×3 convolutions have no
    bias, all BatchNorms count with γ and β, and both linear layers have a bias. `hidden=()` leaves one linear
    layer, as in Network Slimming's VGG-19 (Liu et al. 2017, table 1: 20.04 M parameters).

    Raises:
        ArchitectureError: a depth that VGG does not have, or a size that makes no sense.
    """

    def __init__(
        self, depth: int = 16, num_classes: int = 10, hidden: Sequence[int] = (512,), in_channels: int = 3
    ) -> None:
        super().__init__()
        require_positive(num_classes=num_classes, in_channels=in_channels)
        if depth not in STAGES:
            raise ArchitectureError(f"depth must be one of {', '.join(map(str, STAGES))}, got {depth!r}")
        if isinstance(hidden, str) or not isinstance(hidden, Sequence):
            raise ArchitectureError(f"hidden must be a list of widths such as [512], got {hidden!r}")
        for width in hidden:
            require_positive(hidden=width)
        self.features = nn.Sequential(*convolutions(STAGES[depth], in_channels))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(*head((STAGES[depth][-1][-1], *hidden), num_classes))
        self.apply(initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images `(N, in_channels, H, W)`, at least 32 × 32, to logits `(N, num_classes)`."""
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


def convolutions(stages: Sequence[Sequence[int]], in_channels: int) -> Iterator[nn.Module]:
    """The layers of `features` one after the other."""
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


def initialise(module: nn.Module) -> None:
    """Xavier initialisation with ReLU's gain, as Mehta et al. 2019 train networks; biases start at 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight, gain=nn.init.calculate_gain("relu"))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
