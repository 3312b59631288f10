"""Networks of images that take any height and width, and others that fix them, each in its own way."""

import torch
from torch import nn


class Pooled(nn.Module):
    """Convolutional up to a global mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
        self.fc = nn.Linear(6, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(image).mean((2, 3)))


class Skipping(nn.Module):
    """Halves and doubles its planes, and adds its input: for even sizes only."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 3, 2, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(image)) + image


class Flattened(nn.Module):
    """A linear layer on the planes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, 2, 1), nn.Sequential(nn.Flatten(), nn.Linear(6 * 64, 3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(image))


class Viewed(nn.Module):
    """The same by a view, which makes more rows of larger planes, not an error."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(6 * 64, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(image).view(-1, 6 * 64))


class Measured(nn.Module):
    """Multiplies by its height, as a number of Python."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * int(image.shape[2])


class Measuring(nn.Module):
    """Has a layer that does this."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.measured = nn.Conv2d(3, 6, 3, 2, 1), Measured()
        self.fc = nn.Linear(6, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.fc(self.measured(self.conv(image)).mean((2, 3)))


class Windows(nn.Module):
    """Adaptive pooling to more than one value."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv2d(3, 6, 3, 2, 1), nn.AdaptiveAvgPool2d(3), nn.Linear(54, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(self.conv(image)).flatten(1))
