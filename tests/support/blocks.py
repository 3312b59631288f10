"""The modules that random networks are made of: each wires channels together in another way.

They take `(N, C, *plane)` and return any number of channels on a plane of any size.
"""

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGE = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
ADAPTIVE = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
ADAPTIVE_MAX = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}
DROPOUT = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}


class Dice(random.Random):
    """Draws a block's settings; `dims` is the number of axes of a plane."""

    def __init__(self, seed: int, dims: int):
        super().__init__(seed)
        self.dims = dims

    def yes(self) -> bool:
        return self.random() < 0.5

    def width(self, multiple: int = 1) -> int:
        return multiple * self.randint(2, 4)

    def activation(self, width: int) -> nn.Module:
        makers = [
            nn.ReLU,
            lambda: nn.ReLU(inplace=True),
            nn.ReLU6,
            lambda: nn.LeakyReLU(0.1),
            lambda: nn.Hardswish(inplace=self.yes()),
            lambda: nn.PReLU(width if self.yes() else 1),
            nn.SiLU,
            nn.Sigmoid,
            nn.Identity,
        ]
        return self.choice(makers)()


def norm_act(dice: Dice, width: int) -> nn.Sequential:
    return nn.Sequential(NORM[dice.dims](width, affine=dice.random() < 0.9), dice.activation(width))


def conv(dice: Dice, narrow: int, wide: int, groups: int = 1, stride: int = 1) -> nn.Module:
    """A convolution that keeps the plane's size where `stride` is 1."""
    dilation = dice.choice([1, 1, 2])
    kernel = dice.choice([1, 3, 3])
    mode = dice.choice(["zeros", "zeros", "zeros", "reflect", "replicate", "circular"])
    return CONV[dice.dims](
        narrow,
        wide,
        kernel,
        stride=stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=groups,
        bias=dice.yes(),
        padding_mode=mode,
    )


def conv_norm(dice: Dice, narrow: int, wide: int, groups: int = 1, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(dice, narrow, wide, groups, stride), *norm_act(dice, wide))


class Residual(nn.Module):
    """x + body(x), in place or not, before or after an activation."""

    def __init__(self, dice: Dice, width: int):
        super().__init__()
        self.body = nn.Sequential(conv_norm(dice, width, middle := dice.width()), conv_norm(dice, middle, width))
        self.in_place = dice.yes()
        self.act = dice.activation(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.body(x)
        if self.in_place:
            out += x
            return self.act(out)
        return self.act(out + x)


class Concat(nn.Module):
    """Two branches one after the other, as in DenseNet and Inception."""

    def __init__(self, dice: Dice, narrow: int, left: int, right: int):
        super().__init__()
        self.left, self.right = conv_norm(dice, narrow, left), conv_norm(dice, narrow, right)
        self.with_input = dice.yes()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = [self.left(x), self.right(x)]
        return torch.cat([*branches, x] if self.with_input else branches, 1)


class Halves(nn.Module):
    """Split in two, change one half, put together: by chunk, split with a number, or slices of any kind."""

    def __init__(self, dice: Dice, width: int):
        super().__init__()
        self.half = width // 2
        self.how = dice.choice(["chunk", "split", "sizes", "slice", "width", "every other", "two by two"])
        self.branch = conv_norm(dice, width // 2, width // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "chunk":
            first, second = x.chunk(2, 1)
        elif self.how == "split":
            first, second = x.split(self.half, 1)
        elif self.how == "sizes":
            first, second = torch.split(x, [self.half, x.shape[1] - self.half], 1)
        elif self.how == "slice":
            first, second = x[:, : self.half], x[:, self.half :]
        elif self.how == "width":
            first, second = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
        elif self.how == "every other":
            first, second = x[:, ::2], x[:, 1::2]
        else:
            first, second = x.view(x.shape[0], -1, 2, *x.shape[2:]).unbind(2)
        return torch.cat([first, self.branch(second)], 1)


class Shuffle(nn.Module):
    """Channel shuffle behind a grouped convolution, as in ShuffleNet; with torch's own op or by hand."""

    def __init__(self, dice: Dice, narrow: int, wide: int, groups: int):
        super().__init__()
        self.groups = groups
        self.body = conv_norm(dice, narrow, wide, groups)
        self.fixed = wide // groups if dice.random() < 0.25 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        count, channels, *plane = x.shape
        per_group = self.fixed or channels // self.groups
        return x.view(count, self.groups, per_group, *plane).transpose(1, 2).reshape(count, -1, *plane)


class Excite(nn.Module):
    """Squeeze-and-excitation: channels scaled by what their own means say."""

    def __init__(self, dice: Dice, width: int):
        super().__init__()
        self.body = conv_norm(dice, width, width)
        self.squeeze = CONV[dice.dims](width, middle := dice.width(), 1)
        self.act = dice.activation(middle)
        self.excite = CONV[dice.dims](middle, width, 1)
        self.gate = nn.Sigmoid() if dice.yes() else nn.Hardsigmoid()
        self.pool = ADAPTIVE[dice.dims](1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        return x * self.gate(self.excite(self.act(self.squeeze(self.pool(x)))))


class Inverted(nn.Module):
    """Expansion, depthwise filter, projection, and a shortcut, as in MobileNetV2."""

    def __init__(self, dice: Dice, width: int):
        super().__init__()
        wide, multiplier = dice.width(2), dice.choice([1, 1, 2])
        self.expand = conv_norm(dice, width, wide)
        self.filter = conv_norm(dice, wide, wide * multiplier, wide)
        self.project = nn.Sequential(conv(dice, wide * multiplier, width), NORM[dice.dims](width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.project(self.filter(self.expand(x)))


class Twice(nn.Module):
    """One layer that runs twice, with a BatchNorm of each call's own or a shared one."""

    def __init__(self, dice: Dice, width: int):
        super().__init__()
        self.conv = conv(dice, width, width)
        self.first = norm_act(dice, width)
        self.second = self.first if dice.yes() else norm_act(dice, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.conv(self.first(self.conv(x))))


class InPlaceView(nn.Module):
    """Changes a part of a tensor in place through a view; the whole tensor is read before and after."""

    def __init__(self, dice: Dice, width: int):
        super().__init__()
        self.body = conv_norm(dice, width, width)
        self.before, self.after = conv(dice, width, wide := dice.width()), conv(dice, width, wide)
        self.how = dice.choice(["half", "row", "add", "flat", "whole", "fill"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x).contiguous().clone()
        early = self.before(x)
        if self.how == "half":
            x.chunk(2, 1)[0].relu_().add_(0.5)
        elif self.how == "row":
            x[:, :, 1:].mul_(2.0)
        elif self.how == "add":
            x[:, :, :2] += 1.0
        elif self.how == "flat":
            x.flatten(2).clamp_(min=0.25)
        elif self.how == "fill":
            x[:, :, 0] = 0.5
        else:
            x.add_(1.0)
        return early + self.after(x)


class Gated(nn.Module):
    """The product of two branches, and a maximum with the input."""

    def __init__(self, dice: Dice, width: int):
        super().__init__()
        self.left, self.right = conv_norm(dice, width, width), conv_norm(dice, width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.maximum(self.left(x) * self.right(x), x)


class OneGate(nn.Module):
    """One channel that scales all others, and a learned weight for each of two branches."""

    def __init__(self, dice: Dice, width: int):
        super().__init__()
        self.body, self.gate = conv_norm(dice, width, width), conv_norm(dice, width, 1)
        self.weights = nn.Parameter(torch.randn(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.weights.softmax(0)
        return first * x + second * self.body(x) * torch.sigmoid(self.gate(x))


class Summary(nn.Module):
    """A gate read off the largest channel, the mean one or both, at each position or wherever they are."""

    def __init__(self, dice: Dice, width: int):
        super().__init__()
        self.how = dice.choice(["both", "mean", "largest", "deviation"])
        self.pooled = dice.yes()
        self.gate = conv_norm(dice, 2 if self.how in ("both", "deviation") else 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = []
        if self.how in ("both", "largest"):
            parts.append(x.max(1, keepdim=True).values)
        if self.how != "largest":
            parts.append(x.mean(1, keepdim=True))
        if self.how == "deviation":
            parts.append((x - parts[0]).square().mean(1, keepdim=True))
        seen = torch.cat(parts, 1)
        if self.pooled:
            seen = seen.mean(tuple(range(2, x.ndim)), keepdim=True).expand_as(seen)
        return x * torch.sigmoid(self.gate(seen))


class Taken(nn.Module):
    """Some channels taken by position, and treated as none of the others: a gate, a part that skips, the last one."""

    def __init__(self, dice: Dice, width: int):
        super().__init__()
        self.how = dice.choice(["gate", "last", "part", "quarter", "one", "inside"])
        self.count = dice.randint(1, width - 1)
        self.part = conv_norm(dice, self.count, self.count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "gate":
            return x * x[:, :1].sigmoid()
        if self.how == "last":
            return torch.cat([x[:, -self.count :] + 0.5, x[:, : -self.count]], 1)
        if self.how == "part":
            return torch.cat([self.part(x[:, : self.count]), x[:, self.count :]], 1)
        if self.how == "quarter":
            first, rest = x.split([x.shape[1] // 4, x.shape[1] - x.shape[1] // 4], 1)
            return torch.cat([first.relu() - 0.5, rest], 1)
        if self.how == "one":
            return x + x[:, self.count].unsqueeze(1)
        return torch.cat([x[:, :1], 1 - x[:, 1 : self.count], x[:, self.count :]], 1)


class Inside(nn.Module):
    """Channels viewed with groups of four inside: as lengths, as planes, as weights of each other, or turned."""

    def __init__(self, dice: Dice):
        super().__init__()
        self.how = dice.choice(["shares", "largest", "turned", "scaled", "planes"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, channels, *plane = x.shape
        parts = x.view(count, channels // 4, 4, *plane)
        if self.how == "shares":
            parts = parts * parts.softmax(2)
        elif self.how == "largest":
            parts = parts - parts.amax(2, keepdim=True)
        elif self.how == "turned":
            parts = parts.transpose(1, 2)
        elif self.how == "scaled":
            parts = torch.stack([parts[:, :, place] * (place - 1.5) for place in range(4)], 2)
        elif len(plane) == 2:
            return nn.functional.pixel_unshuffle(nn.functional.pixel_shuffle(x, 2), 2)
        return parts.reshape(x.shape)


class Summed(nn.Module):
    """Channels added up to a gate, a length, or the likeness of positions, by one head or two."""

    def __init__(self, dice: Dice, width: int):
        super().__init__()
        self.how = dice.choice(["gate", "length", "likeness", "heads"])
        self.query = conv_norm(dice, width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "gate":
            return x * x.sum(1, keepdim=True).sigmoid()
        if self.how == "length":
            return nn.functional.normalize(x, dim=1, eps=0.1)
        count = 2 if self.how == "heads" else 1
        queries, keys = (each.flatten(2).unflatten(1, (count, -1)).mT for each in (self.query(x), x))
        shares = (0.3 * queries @ keys.mT).softmax(-1)
        return (shares @ keys).mT.reshape(x.shape)


class Halved(nn.Module):
    """Halves of the channels made into one: the larger one, their sum or mean, or one gated by the other."""

    def __init__(self, dice: Dice):
        super().__init__()
        self.how = dice.choice(["amax", "sum", "mean", "glu"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "glu":
            return nn.functional.glu(x, 1)
        return getattr(x.view(x.shape[0], 2, -1, *x.shape[2:]), self.how)(1)


Draw = Callable[[torch.Tensor], torch.Tensor]


DRAWS: dict[str, Draw] = {
    "torch": torch.randn_like,
    "python": lambda mean: torch.full_like(mean, random.gauss(0, 1)),
    "numpy": lambda mean: torch.full_like(mean, float(np.random.normal())),
}


class Encoder(nn.Module):
    """A variational autoencoder's way from a mean and a deviation to a sample."""

    def __init__(self, draw: str = "torch") -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 12, 3, bias=False), nn.BatchNorm2d(12)
        self.mean, self.deviation, self.head = nn.Linear(12, 6), nn.Linear(12, 6), nn.Linear(6, 3)
        self.draw = draw

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = torch.relu(self.bn(self.conv(image))).mean((2, 3))
        mean = self.mean(found)
        return self.head(mean + DRAWS[self.draw](mean) * self.deviation(found).exp())
