"""ResNet-164 as in Network Slimming: pre-activation bottlenecks (BatchNorm and ReLU before each convolution)."""

import torch
from torch import nn

from slimnet.errors import ArchitectureError
from slimnet.models.arguments import require_positive

STEM = 16
WIDTHS = (16, 32, 64)
EXPANSION = 4
"""A bottleneck of width w reads and writes 4w channels."""


class Bottleneck(nn.Module):
    """Convolutions 1×1, 3×3 and 1×1, with BatchNorm and ReLU before each, added to the input."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu3 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, in_channels, H, W)` to `(N, 4 · width, ⌈H / stride⌉, ⌈W / stride⌉)`."""
        inner = self.conv1(self.relu1(self.bn1(x)))
        inner = self.conv2(self.relu2(self.bn2(inner)))
        inner = self.conv3(self.relu3(self.bn3(inner)))
        return inner + self.downsample(x)


class PreActResNet(nn.Module):
    """A pre-activation residual network of `depth` = 9n + 2 layers: three stages of n bottlenecks.

    ResNet-164 for 32 × 32 images has 1,703,258 parameters with 10 classes and 1,726,388 with 100 (Liu et al.
    2017, table 1: 1.70 M and 1.73 M), including BatchNorm's γ and β and the linear layer's bias. It has
    247,646,720 MACs. Their 4.99e8 FLOPs are between 2 × MACs (4.95e8) and 2 × MACs plus one multiply-add for
    every value that BatchNorm normalises (5.02e8); their way of counting is not printed.

    The state dict has the keys of the Network Slimming repository's preresnet (`conv1`, `layer1.0.bn1`, ...,
    `layer1.0.downsample.0`, `bn`, `fc`), without its channel selections. The initialisation is the same:
    weights are normal with He's variance 2 / (k² · out_channels), γ is 0.5.

    Raises:
        ArchitectureError: the depth is not 9n + 2, or another argument is not valid.
    """

    def __init__(self, depth: int = 164, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        require_positive(depth=depth, num_classes=num_classes, in_channels=in_channels)
        if depth < 11 or depth % 9 != 2:
            raise ArchitectureError(f"depth must be 9n + 2 (11, 20, 164, ...), got {depth}")
        blocks = (depth - 2) // 9
        self.conv1 = nn.Conv2d(in_channels, STEM, 3, padding=1, bias=False)
        self.layer1 = make_stage(STEM, WIDTHS[0], blocks, 1)
        self.layer2 = make_stage(EXPANSION * WIDTHS[0], WIDTHS[1], blocks, 2)
        self.layer3 = make_stage(EXPANSION * WIDTHS[1], WIDTHS[2], blocks, 2)
        self.bn = nn.BatchNorm2d(EXPANSION * WIDTHS[2])
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(EXPANSION * WIDTHS[2], num_classes)
        self.apply(initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images `(N, in_channels, H, W)` to logits `(N, num_classes)`."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.fc(torch.flatten(self.pool(self.relu(self.bn(x))), 1))


def make_stage(in_channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    """`blocks` bottlenecks of one width; the first one changes width and resolution."""
    first = Bottleneck(in_channels, width, stride)
    return nn.Sequential(first, *(Bottleneck(EXPANSION * width, width, 1) for _ in range(blocks - 1)))


def initialise(module: nn.Module) -> None:
    """Network Slimming's initialisation: He's for convolutions, γ = 0.5; linear layers keep torch's."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.constant_(module.weight, 0.5)
