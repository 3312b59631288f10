"""Small networks as hypothesis draws them: layers, and between them ops that few networks use.

A network is drawn as a `Program`, plain data that hypothesis can shrink; `build` makes it. An op is a function of a
feature map `(N, C, H, W)` and of its `Draws`: numbers, tables and layers, which are drawn when the network is built and
stay what they are, whatever the network's width is later. So numbers among them stand for numbers in somebody's code.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from masking import calibrate, norms
from torch import nn
from torch.nn import functional

WIDTHS = (4, 6, 8)
SIDE = 6
WIDEST, LARGEST = 24, 10
"""How many channels, and how large a plane, an op may leave to the next."""


class Draws:
    """What one call of an op has drawn: while the network is built new ones, later the same again."""

    def __init__(self, part: "Part"):
        self.part, self.random = part, part.random
        self.numbers, self.own = itertools.count(), itertools.count()

    def below(self, count: int) -> int:
        """A number from 0 to `count` - 1."""
        place = next(self.numbers)
        if self.random is not None:
            self.part.numbers.append(self.random.randrange(max(1, count)))
        return self.part.numbers[place]

    def one_of(self, *choices: object) -> object:
        return choices[self.below(len(choices))]

    def places(self, count: int, size: int) -> torch.Tensor:
        """`count` positions `(count,)` on an axis of a size."""
        return torch.tensor([self.below(size) for _ in range(count)])

    def layer(self, make: Callable[[], nn.Module]) -> nn.Module:
        """A module of the network's own."""
        place = next(self.own)
        if self.random is not None:
            self.part.own.append(make().double())
        return self.part.own[place]

    def table(self, *shape: int) -> torch.Tensor:
        """A parameter of the network's own."""
        return self.layer(lambda: nn.ParameterList([torch.rand(shape) + 0.5]))[0]


Way = Callable[[torch.Tensor, Draws], torch.Tensor]


class Part(nn.Module):
    """One op of a program."""

    def __init__(self, way: Way, seed: int):
        super().__init__()
        self.way, self.random = way, random.Random(seed)
        self.numbers: list[int] = []
        self.own = nn.ModuleList()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.way(x, Draws(self)).to(x.dtype)
        if not 3 <= min(y.shape[2:]) <= max(y.shape[2:]) <= LARGEST:
            y = functional.interpolate(y, size=(SIDE, SIDE))
        return y


class Layer(nn.Module):
    """A convolution with its BatchNorm and activation."""

    def __init__(self, inputs: int, outputs: int, draw: random.Random):
        super().__init__()
        kernel = draw.choice([1, 1, 3])
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=draw.choice([0, kernel // 2]), bias=draw.random() < 0.5)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = draw.choice([nn.ReLU(), nn.ReLU(inplace=True), nn.SiLU(), nn.Identity()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.bn(self.conv(x)))


class Network(nn.Module):
    """Parts one after the other, with a head at the end and one that reads what another part returned before.

    What that was may have been written to in the meantime.
    """

    def __init__(self, parts: list[nn.Module], tapped: int, heads: list[nn.Module]):
        super().__init__()
        self.parts, self.heads, self.tapped = nn.ModuleList(parts), nn.ModuleList(heads), tapped

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = x
        for place, part in enumerate(self.parts):
            x = part(x)
            if place == self.tapped:
                before = x
        ends = [head(y) for head, y in zip(self.heads, (x, before), strict=True)]
        return torch.cat([end.flatten(1) for end in ends], 1)


@dataclass(frozen=True)
class Program:
    """The names of the ops after each layer, what the rest is drawn with, and how many channels are dead."""

    stages: tuple[tuple[str, ...], ...]
    seed: int
    rate: float = 0.4


def programs(names: list[str]) -> st.SearchStrategy[Program]:
    """Programs of these ops."""
    stage = st.lists(st.sampled_from(names), min_size=1, max_size=3).map(tuple)
    stages = st.lists(stage, min_size=1, max_size=3).map(tuple)
    return st.builds(Program, stages, st.integers(0, 2**20), st.sampled_from([0.4, 0.4, 0.7, 0.95]))


def probe(batch: int = 2, side: int = SIDE, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, side, side, dtype=torch.float64, generator=generator)


def build(program: Program, ops: dict[str, Way]) -> nn.Module:
    """The network in double precision and in evaluation mode, with dead channels; the random state is kept."""
    draw = random.Random(program.seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(program.seed)
        x, parts, seen = probe(), [], []
        for stage in program.stages:
            parts.append(Layer(x.shape[1], draw.choice(WIDTHS), draw).double())
            x = parts[-1](x)
            seen.append(x)
            for name in stage:
                part = Part(ops[name], draw.randrange(2**20))
                try:
                    x = part(x)
                except (RuntimeError, IndexError, ValueError):  # an op that does not fit these sizes is left out
                    continue
                part.random = None
                parts.append(part)
                seen.append(x)
                if x.shape[1] > WIDEST:
                    parts.append(nn.Conv2d(x.shape[1], draw.choice(WIDTHS), 1).double())
                    x = parts[-1](x)
                    seen.append(x)
        tapped = draw.randrange(len(parts))
        heads = [nn.Conv2d(y.shape[1], 3, draw.choice([1, 3]), padding=1).double() for y in (x, seen[tapped])]
        network = Network(parts, tapped, heads)
        switch_off(network, program.rate)
        calibrate(network, [probe(8, seed=1)])
    return network.eval()


def switch_off(network: nn.Module, rate: float) -> None:
    """Draw γ and β; dead channels have γ = 0, and β negative, zero or positive."""
    for norm in norms(network):
        dead = torch.rand(norm.num_features) < rate
        norm.weight.uniform_(0.5, 1.5).mul_(torch.randn(norm.num_features).sign())
        norm.bias.normal_(0, 0.5)
        norm.weight[dead] = 0.0
        norm.bias[dead] *= torch.randint(0, 3, (int(dead.sum()),)).clamp(max=1)
