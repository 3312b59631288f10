"""Networks whose forward selects cells of images by their values, and layers with dead units for behind that."""

from collections.abc import Callable

import torch
from torch import nn
from wiring import EXACT, planes, wired

CHANNELS, SIDE, UNITS, DEAD, CLASSES = 4, 6, 10, 4, 3
LEFT = UNITS - DEAD

Forward = Callable[[nn.Module, torch.Tensor], object]


class Uneven(nn.Linear):
    """A layer that refuses few cells."""

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        if len(cells) <= 8:
            raise ValueError("too few cells")
        return super().forward(cells)


def dying(layer: nn.Module, bias: float = -0.5) -> nn.Module:
    """A layer whose first units are dead: their filters are zero, and their biases some constants."""
    with torch.no_grad():
        layer.weight[:DEAD] = 0
        layer.bias[:DEAD] = bias
    return layer


def network(forward: Forward, **layers: nn.Module) -> nn.Module:
    """A convolution in front, and linear layers for behind a selection; units of `first` and `second` are dead."""
    torch.manual_seed(0)
    return wired(
        forward,
        body=nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1), nn.ReLU()),
        first=dying(nn.Linear(CHANNELS, UNITS), 0.5),
        second=dying(nn.Linear(UNITS, UNITS)),
        scores=nn.Linear(UNITS, CLASSES),
        boxes=nn.Linear(UNITS, 2),
        uneven=Uneven(UNITS, CLASSES),
        other=nn.Linear(CHANNELS, UNITS),
        several=nn.ModuleList([nn.Linear(UNITS, CLASSES), nn.Linear(UNITS, CLASSES)]),
        **layers,
    )


def selected(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The cells `(n, C)` of all images whose mean is over 0.6: any number of them, also none."""
    cells = model.body(images).movedim(1, -1).flatten(0, -2)
    return cells[(cells.mean(1) > 0.6).nonzero().flatten()]


def inputs(shift: float, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return planes(3, SIDE, batch=2) + shift


SHIFTS = (-9.0, -2.0, -0.6, 0.0, 4.0)
"""What is added to images, so that no cell, one, some or all of them are selected."""


def check_equal(dense: nn.Module, slim: nn.Module) -> set[int]:
    """Compare both networks on images with any number of cells, and return these numbers."""
    numbers = set()
    for shift in SHIFTS:
        for seed in range(3):
            images = inputs(shift, seed)
            with torch.no_grad():
                expected, found = dense(images), slim(images)
                numbers.add(len(selected(dense, images)))
            expected, found = ([each] if isinstance(each, torch.Tensor) else each for each in (expected, found))
            assert [each.shape for each in found] == [each.shape for each in expected]
            for left, right in zip(expected, found, strict=True):
                torch.testing.assert_close(right, left, rtol=EXACT, atol=EXACT)
    return numbers
