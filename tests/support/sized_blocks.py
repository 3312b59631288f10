"""Networks whose code takes its widths from attributes: blocks of the shapes that are usual in detectors and others."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from wiring import norm


class ConvNorm(nn.Sequential):
    """A convolution and a BatchNorm, perhaps with a ReLU."""

    def __init__(self, inputs: int, outputs: int, dead: list[int], size: int = 1, *, active: bool = True):
        super().__init__(nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False), norm(outputs, dead))
        if active:
            self.append(nn.ReLU())


class Halves(nn.Module):
    """A cross-stage block: one half goes on, the other one is computed with."""

    def __init__(self, way: str, dead: list[int]):
        super().__init__()
        self.width, self.c, self.way = 16, 8, way
        self.stem = ConvNorm(2, 16, dead)
        self.inner = ConvNorm(8, 8, [1], 3)
        self.head = nn.Conv2d(24, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = HALVES[self.way](self, self.stem(x))
        return self.head(torch.cat([first, second, self.inner(second)], 1))


HALVES: dict[str, Callable[[Halves, torch.Tensor], tuple[torch.Tensor, ...]]] = {
    "split by half an attribute": lambda m, x: x.split(m.width // 2, 1),
    "split by an attribute": lambda m, x: torch.split(x, m.c, dim=1),
    "split by two": lambda m, x: x.split((m.c, m.c), 1),
    "split by a keyword": lambda m, x: x.split(split_size=m.c, dim=1),
    "what remains": lambda m, x: x.split([m.c, m.width - m.c], 1),
    "slices": lambda m, x: (x[:, : m.c], x[:, m.c :]),
    "slices from the end": lambda m, x: (x[:, : -m.c], x[:, -m.c :]),
    "narrow": lambda m, x: (x.narrow(1, 0, m.c), x.narrow(1, m.c, m.c)),
    "view": lambda m, x: x.view(x.shape[0], 2, m.c, *x.shape[2:]).unbind(1),
    "reshape and infer": lambda m, x: x.reshape(-1, 2, m.c, x.shape[2], x.shape[3]).unbind(1),
}


class Parts(nn.Module):
    """A split into parts of unequal sizes, which stand in a list, a tuple or a frozen dataclass."""

    def __init__(self, way: str):
        super().__init__()
        self.sizes = [3, 5, 8] if way == "list" else (3, 5, 8)
        self.config = Config(3, 5, (8, 1)) if way == "dataclass" else None
        self.stem = ConvNorm(2, 16, [0, 4, 5, 9, 10, 11, 12])
        self.heads = nn.ModuleList(nn.Conv2d(size, 2, 3, padding=1) for size in (3, 5, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sizes = (self.config.first, self.config.second, self.config.others[0]) if self.config else self.sizes
        parts = self.stem(x).split(sizes, 1)
        return torch.stack([head(part) for head, part in zip(self.heads, parts, strict=True)]).sum(0)


@dataclass(frozen=True)
class Config:
    """Widths that several modules share."""

    first: int
    second: int
    others: tuple[int, ...]


class Attention(nn.Module):
    """Heads with queries, keys and values of different sizes in one convolution, as in YOLO11 and LeViT.

    `dead` are the channels of a head's query and key, `silent` those of its value.
    """

    def __init__(self, dead: list[list[int]], silent: list[list[int]], way: str = "all"):
        super().__init__()
        self.heads, self.key, self.value, self.way = 2, 4, 6, way
        self.scale = self.key**-0.5
        places = [head * 14 + place for head in range(2) for place in dead[head]]
        places += [head * 14 + 4 + place for head in range(2) for place in dead[head]]
        places += [head * 14 + 8 + place for head in range(2) for place in silent[head]]
        self.qkv = ConvNorm(2, 28, places, active=False)
        self.positions = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.project = nn.Conv2d(12, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, _, height, width = x.shape
        sizes = [self.key, self.key, self.value]
        each = 2 * self.key + self.value if self.way == "all" else -1
        q, k, v = self.qkv(x).view(batch, self.heads, each, height * width).split(sizes, dim=2)
        weights = ((q.transpose(-2, -1) @ k) * self.scale).softmax(-1)
        y = (v @ weights.transpose(-2, -1)).reshape(batch, self.heads * self.value, height, width)
        return self.project(y + self.positions(v.reshape(batch, self.heads * self.value, height, width)))


class Shortcut(nn.Module):
    """A shortcut that fills up with zero channels, as many as attributes say."""

    def __init__(self, way: str):
        super().__init__()
        self.inputs, self.outputs, self.way = 8, 16, way
        self.stem = ConvNorm(2, 8, [1, 2, 7], 3)
        self.inner = ConvNorm(8, 16, [0, 1, 5, 6, 11, 12, 13, 15], 3, active=False)
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.inner(x) + SHORTCUTS[self.way](self, x))


SHORTCUTS: dict[str, Callable[[Shortcut, torch.Tensor], torch.Tensor]] = {
    "behind": lambda m, x: F.pad(x, (0, 0, 0, 0, 0, m.outputs - m.inputs)),
    "behind, by the width": lambda m, x: F.pad(x, (0, 0, 0, 0, 0, m.outputs - x.shape[1])),
}
