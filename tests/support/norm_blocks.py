"""Blocks of random networks with norms that compute statistics of their inputs: by group, by channel, over channels."""

from collections.abc import Iterator

import torch
from blocks import CONV, Dice, conv_norm, norm_act
from torch import nn

INSTANCE = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def some_zeros(dice: Dice, size: int, run: int = 1) -> torch.Tensor:
    """γ, some of which are zero: whole runs of that length, and single ones."""
    gamma = torch.tensor([dice.uniform(0.5, 1.5) for _ in range(size)])
    for start in range(0, size, run):
        if dice.yes():
            gamma[start : start + run] = 0.0
    gamma[dice.randrange(size)] = 0.0
    return gamma


def draw_scales(dice: Dice, norm: nn.Module, size: int, run: int = 1) -> nn.Module:
    """Give a norm with γ and β such a γ, and β of any sign."""
    if norm.weight is not None:
        norm.weight.data = some_zeros(dice, size, run)
        norm.bias.data = torch.tensor([dice.uniform(-0.5, 0.5) for _ in range(size)])
    return norm


class GroupNormed(nn.Module):
    """A convolution, some of whose filters are zero, a GroupNorm and an activation; added to the input or not."""

    def __init__(self, dice: Dice, width: int) -> None:
        super().__init__()
        self.conv = conv_norm(dice, width, width)
        groups = dice.choice([size for size in range(1, width + 1) if width % size == 0])
        norm = nn.GroupNorm(groups, width, affine=dice.random() < 0.8)
        self.norm = draw_scales(dice, norm, width, width // groups)
        self.act = dice.activation(width)
        self.with_input = dice.yes()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm(self.conv(x))
        return self.act(out + x if self.with_input else out)


class InstanceNormed(nn.Module):
    """An InstanceNorm within a residual sum, with or without γ and statistics."""

    def __init__(self, dice: Dice, width: int) -> None:
        super().__init__()
        self.conv = CONV[dice.dims](width, width, 1, bias=dice.yes())
        self.norm = draw_scales(dice, INSTANCE[dice.dims](width, affine=dice.yes()), width)
        self.act = dice.activation(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x + self.norm(self.conv(x)))


class TokenNormed(nn.Module):
    """A residual stream of tokens through linear layers behind LayerNorms; some channels are constant all the way."""

    def __init__(self, dice: Dice, narrow: int, width: int) -> None:
        super().__init__()
        dead = sorted({dice.randrange(width) for _ in range(dice.randrange(width))})
        self.stem = nn.Linear(narrow, width)
        self.stem.weight.data[dead] = 0.0
        self.norms = nn.ModuleList(draw_scales(dice, nn.LayerNorm(width), width) for _ in range(2))
        hidden = dice.width()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width, bias=dice.yes())
        self.head = nn.Linear(width, width)
        self.back = nn.Sequential(*norm_act(dice, width))
        for gamma in self.stream(dead):
            gamma.data[dead] = 0.0

    def stream(self, dead: list[int]) -> Iterator[nn.Parameter]:
        """What must be zero for these channels to be constant and read by nobody."""
        yield from (norm.weight for norm in self.norms)
        if dead:
            yield self.down.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(x.movedim(1, -1))
        tokens = tokens + self.down(self.up(self.norms[0](tokens)).relu())
        return self.back(self.head(self.norms[1](tokens)).movedim(-1, 1))
