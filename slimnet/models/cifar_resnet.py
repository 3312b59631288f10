"""The CIFAR residual networks of He et al. 2016 (section 4.2), which Li et al. 2017 prune."""

import torch
from torch import nn
from torch.nn import functional as F

from slimnet.errors import ArchitectureError
from slimnet.models.arguments import require_positive

WIDTHS = (16, 32, 64)


class PadShortcut(nn.Module):
    """The shortcut without parameters (He et al. 2016, option A): every `stride`-th pixel, padded with zero channels.

    `before` and `after` are the numbers of zero channels before and after those of the input. They are read at every
    forward, so that a network whose widths have changed is adapted by setting them.
    """

    def __init__(self, stride: int, before: int, after: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = before
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, H, W)` to `(N, before + C + after, ⌈H / stride⌉, ⌈W / stride⌉)`."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        """The attributes, for printing."""
        return f"stride={self.stride}, before={self.before}, after={self.after}"


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with BatchNorm, added to a shortcut of their input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = make_shortcut(in_channels, out_channels, stride, shortcut)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, in_channels, H, W)` to `(N, out_channels, ⌈H / stride⌉, ⌈W / stride⌉)`."""
        inner = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(inner)) + self.shortcut(x))


def make_shortcut(in_channels: int, out_channels: int, stride: int, option: str) -> nn.Module:
    """The identity if the shapes agree, otherwise option A (zero channels) or B (1×1 convolution and BatchNorm)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if option == "B":
        projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        return nn.Sequential(projection, nn.BatchNorm2d(out_channels))
    added = out_channels - in_channels
    return PadShortcut(stride, before=added // 2, after=added - added // 2)


class CifarResNet(nn.Module):
    """A residual network of `depth` = 6n + 2 layers: three stages of n blocks with 16, 32 and 64 channels.

    Its state dict has the keys of akamaster/pytorch_resnet_cifar10 (`conv1`, `bn1`, `layer1.0.conv1`, ...,
    `linear`), so that checkpoints of that repository load unchanged. With 10 classes, option A and 32 × 32 images,
    including BatchNorm's γ and β, ResNet-56 has 125,485,696 MACs and 853,018 parameters (Li et al. 2017, table 1:
    1.25e8 and 0.85e6), and ResNet-110 has 252,887,680 and 1,727,962 (2.53e8 and 1.72e6).

    Raises:
        ArchitectureError: the depth is not 6n + 2, or another argument is not valid.
    """

    def __init__(self, depth: int = 20, num_classes: int = 10, shortcut: str = "A", in_channels: int = 3) -> None:
        super().__init__()
        require_positive(depth=depth, num_classes=num_classes, in_channels=in_channels)
        if depth < 8 or depth % 6 != 2:
            raise ArchitectureError(f"depth must be 6n + 2 (20, 32, 44, 56, 110, ...), got {depth}")
        if shortcut not in ("A", "B"):
            raise ArchitectureError(f"shortcut must be 'A' (zero channels) or 'B' (1×1 convolution), got {shortcut!r}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU()
        self.layer1 = make_stage(WIDTHS[0], WIDTHS[0], blocks, 1, shortcut)
        self.layer2 = make_stage(WIDTHS[0], WIDTHS[1], blocks, 2, shortcut)
        self.layer3 = make_stage(WIDTHS[1], WIDTHS[2], blocks, 2, shortcut)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(WIDTHS[2], num_classes)
        self.apply(initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images `(N, in_channels, H, W)` to logits `(N, num_classes)`."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(self.pool(x), 1))


def make_stage(in_channels: int, out_channels: int, blocks: int, stride: int, shortcut: str) -> nn.Sequential:
    """`blocks` blocks of one width; the first one changes width and resolution."""
    first = BasicBlock(in_channels, out_channels, stride, shortcut)
    rest = [BasicBlock(out_channels, out_channels, 1, shortcut) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def initialise(module: nn.Module) -> None:
    """He et al.'s initialisation of the weights, as in the original; biases keep torch's initialisation."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
