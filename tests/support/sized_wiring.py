"""Random blocks whose code takes its widths from attributes: integers, lists, tuples and frozen dataclasses."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from blocks import Dice, conv_norm
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Sizes:
    """Widths of parts."""

    parts: tuple[int, ...]
    last: int


class Sized(nn.Module):
    """Divides its channels by attributes, does something else to every part, and puts them together."""

    def __init__(self, dice: Dice, width: int):
        super().__init__()
        self.how = dice.choice(sorted(WAYS))
        self.width, self.half, self.first = width, width // 2, dice.randint(1, width - 1)
        self.last = width - self.first
        self.sizes = dice.choice([list, tuple])([self.first, self.last])
        self.config = Sizes((self.first,), self.last)
        self.groups, self.each = dice.choice([(1, width // 2), (2, width // 4)]) if width % 4 == 0 else (1, width // 2)
        self.between = conv_norm(dice, width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return WAYS[self.how](self, x)


def together(parts: tuple[torch.Tensor, ...] | list[torch.Tensor], axis: int = 1) -> torch.Tensor:
    """The parts behind each other, each times another number, the last one first."""
    return torch.cat([(place + 1) * part for place, part in enumerate(parts)][::-1], axis)


def in_heads(m: Sized, x: torch.Tensor) -> torch.Tensor:
    """Two heads, each of which has parts of its own."""
    first = m.each if m.groups == 2 else m.half - m.half // 2
    parts = x.view(len(x), 2, m.half, -1).split([first, m.half - first], 2)
    return together(parts, 2).reshape(len(x), m.width, *x.shape[2:])


WAYS: dict[str, Callable[[Sized, torch.Tensor], torch.Tensor]] = {
    "half": lambda m, x: together(x.split(m.half, 1)),
    "half of it": lambda m, x: together(x.split(m.width // 2, 1)),
    "sizes": lambda m, x: together(x.split(m.sizes, 1)),
    "config": lambda m, x: together(torch.split(x, [m.config.parts[0], m.config.last], 1)),
    "the rest": lambda m, x: together(x.split([m.first, m.width - m.first], 1)),
    "the rest of the width": lambda m, x: together(x.split([m.first, x.shape[1] - m.first], 1)),
    "slices": lambda m, x: together([x[:, : m.first], x[:, m.first :]]),
    "slices from the end": lambda m, x: together([x[:, : -m.last], x[:, -m.last :]]),
    "a slice alone": lambda m, x: torch.cat([x, x[:, m.first :]], 1)[:, : m.width] * 2,
    "narrow": lambda m, x: together([x.narrow(1, 0, m.first), x.narrow(1, m.first, m.last)]),
    "view": lambda m, x: together(x.view(len(x), 2, m.half, *x.shape[2:]).unbind(1)),
    "turned view": lambda m, x: together(x.reshape(len(x), m.half, 2, *x.shape[2:]).unbind(2)),
    "shuffle": lambda m, x: x.view(len(x), 2, m.half, *x.shape[2:]).transpose(1, 2).reshape(x.shape),
    "heads": in_heads,
    "product": lambda m, x: together(x.split(m.groups * m.each, 1)),
    "twice": lambda m, x: together(m.between(together(x.split(m.half, 1))).split(m.half, 1)),
    "two sizes": lambda m, x: together(m.between(together(x.split(m.half, 1))).split(m.sizes, 1)),
    "a factor": lambda m, x: together(x.split(m.half, 1)) / m.half,
    "a condition": lambda m, x: together(x.split(m.half, 1)) if m.half > 2 else x.relu(),
    "filled up": lambda m, x: m.between(x) + F.pad(x[:, : m.first], [0, 0] * (x.ndim - 2) + [0, m.last]),
    "filled up to": lambda m, x: F.pad(y := x[:, : m.first], [0, 0] * (x.ndim - 2) + [m.width - y.shape[1], 0]) + x,
    "viewed": lambda m, x: m.between(x.reshape(len(x), m.width, -1).view(len(x), m.width, *x.shape[2:])),
}
