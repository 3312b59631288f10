"""DenseNet-40 as in Network Slimming: every layer reads the outputs of all preceding layers of its block."""

import torch
from torch import nn

from slimnet.errors import ArchitectureError
from slimnet.models.arguments import require_positive
from slimnet.models.preact_resnet import initialise


class DenseLayer(nn.Module):
    """BatchNorm, ReLU and a 3×3 convolution, whose `growth` channels are concatenated to the input."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, in_channels, H, W)` to `(N, in_channels + growth, H, W)`, the new channels last."""
        return torch.cat([x, self.conv1(self.relu1(self.bn1(x)))], 1)


class Transition(nn.Module):
    """BatchNorm, ReLU and a 1×1 convolution between two blocks, then 2×2 average pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, channels, H, W)` to `(N, channels, ⌊H / 2⌋, ⌊W / 2⌋)`."""
        return self.pool(self.conv1(self.relu1(self.bn1(x))))


class CifarDenseNet(nn.Module):
    """A DenseNet of `depth` = 3n + 4 layers: three blocks of n layers that each add `growth` channels.

    DenseNet-40 for 32 × 32 images has 1,019,722 parameters with 10 classes and 1,060,132 with 100 (Liu et al.
    2017, table 1: 1.02 M and 1.06 M), including BatchNorm's γ and β and the linear layer's bias. It has
    264,812,928 MACs. Their 5.33e8 FLOPs are between 2 × MACs (5.30e8) and 2 × MACs plus one multiply-add for
    every value that BatchNorm normalises (5.34e8); their way of counting is not printed.

    These numbers are for 16 output channels of the first convolution (`stem`), as in the paper. The Network
    Slimming repository has 24; with `stem=24` the state dict has the keys and shapes of its checkpoints
    (`conv1`, `dense1.0.bn1`, `dense1.0.conv1`, `trans1.conv1`, ..., `bn`, `fc`), without its channel
    selections. The initialisation is the same: weights are normal with He's variance 2 / (k² · out_channels), γ is 0.5.

    Raises:
        ArchitectureError: the depth is not 3n + 4, or another argument is not valid.
    """

    def __init__(
        self, depth: int = 40, num_classes: int = 10, growth: int = 12, stem: int = 16, in_channels: int = 3
    ) -> None:
        super().__init__()
        require_positive(depth=depth, num_classes=num_classes, growth=growth, stem=stem, in_channels=in_channels)
        if depth < 7 or depth % 3 != 1:
            raise ArchitectureError(f"depth must be 3n + 4 (7, 10, 40, 100, ...), got {depth}")
        layers = (depth - 4) // 3
        first, second, last = (stem + blocks * layers * growth for blocks in (1, 2, 3))
        self.conv1 = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.dense1 = dense_block(stem, growth, layers)
        self.trans1 = Transition(first)
        self.dense2 = dense_block(first, growth, layers)
        self.trans2 = Transition(second)
        self.dense3 = dense_block(second, growth, layers)
        self.bn = nn.BatchNorm2d(last)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(last, num_classes)
        self.apply(initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images `(N, in_channels, H, W)`, at least 4 × 4, to logits `(N, num_classes)`."""
        x = self.trans1(self.dense1(self.conv1(x)))
        x = self.dense3(self.trans2(self.dense2(x)))
        return self.fc(torch.flatten(self.pool(self.relu(self.bn(x))), 1))


def dense_block(in_channels: int, growth: int, layers: int) -> nn.Sequential:
    """`layers` layers, each of which reads `growth` channels more than the preceding one."""
    return nn.Sequential(*(DenseLayer(in_channels + index * growth, growth) for index in range(layers)))
