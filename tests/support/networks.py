"""Small random networks: every way of wiring channels together that slimnet knows, one after the other.

A network is drawn as a `Recipe`, plain data that hypothesis can shrink; `build` makes it of `blocks` that fit behind
each other.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from blocks import (
    ADAPTIVE,
    ADAPTIVE_MAX,
    AVERAGE,
    CONV,
    DROPOUT,
    MAX,
    TRANSPOSED,
    Concat,
    Dice,
    Excite,
    Gated,
    Halved,
    Halves,
    InPlaceView,
    Inside,
    Inverted,
    OneGate,
    Residual,
    Shuffle,
    Summary,
    Summed,
    Taken,
    Twice,
    conv_norm,
    norm_act,
)
from hypothesis import strategies as st
from masking import calibrate, kill
from norm_blocks import GroupNormed, InstanceNormed, TokenNormed
from sized_wiring import Sized
from torch import nn

SIDE = {1: 16, 2: 9, 3: 6}
"""The side of an input plane, by its number of axes."""


@dataclass(frozen=True)
class Recipe:
    """A network as data: its blocks by name, and a seed for their settings, weights and statistics."""

    blocks: tuple[str, ...]
    seed: int
    dims: int = 2
    head: str = "pooled"
    inputs: int = 1
    returns: str = "tensor"
    training: bool = False


Maker = Callable[[Dice, int], tuple[nn.Module, int]]
"""Makes a block for some number of channels; also tells how many it returns."""


def widened(dice: Dice, width: int, multiple: int) -> tuple[nn.Module, int]:
    """A layer in front of a block that needs a multiple of channels."""
    wide = dice.width(multiple)
    return conv_norm(dice, width, wide), wide


def plain(dice: Dice, width: int) -> tuple[nn.Module, int]:
    wide = dice.width()
    return conv_norm(dice, width, wide), wide


def strided(dice: Dice, width: int) -> tuple[nn.Module, int]:
    wide = dice.width()
    return nn.Sequential(conv_norm(dice, width, wide, stride=2), nn.Upsample(scale_factor=2)), wide


def concat(dice: Dice, width: int) -> tuple[nn.Module, int]:
    left, right = dice.width(), dice.width()
    block = Concat(dice, width, left, right)
    return block, left + right + (width if block.with_input else 0)


def halves(dice: Dice, width: int) -> tuple[nn.Module, int]:
    front, wide = widened(dice, width, 2)
    return nn.Sequential(front, Halves(dice, wide)), wide


def shuffle(dice: Dice, width: int) -> tuple[nn.Module, int]:
    groups = dice.choice([2, 3])
    front, wide = widened(dice, width, groups)
    out = dice.width(groups)
    return nn.Sequential(front, Shuffle(dice, wide, out, groups)), out


def grouped(dice: Dice, width: int) -> tuple[nn.Module, int]:
    groups = dice.choice([2, 3])
    front, wide = widened(dice, width, groups)
    out = dice.width(groups)
    return nn.Sequential(front, conv_norm(dice, wide, out, groups)), out


def transposed(dice: Dice, width: int) -> tuple[nn.Module, int]:
    groups = dice.choice([1, 1, 2])
    front, wide = widened(dice, width, groups)
    out = dice.width(groups)
    kernel, stride, padding = dice.choice([(1, 1, 0), (3, 1, 1), (2, 2, 0)])
    layer = TRANSPOSED[dice.dims](wide, out, kernel, stride, padding, groups=groups, bias=dice.yes())
    return nn.Sequential(front, layer, *norm_act(dice, out), MAX[dice.dims](stride)), out


def pooled(dice: Dice, width: int) -> tuple[nn.Module, int]:
    makers = [
        lambda: MAX[dice.dims](3, 1, 1),
        lambda: AVERAGE[dice.dims](3, 1, 1, count_include_pad=dice.yes()),
        lambda: AVERAGE[dice.dims](2, 1),
        lambda: ADAPTIVE[dice.dims](6),
        lambda: nn.Upsample(scale_factor=2),
        lambda: nn.Dropout(0.3),
        lambda: DROPOUT[dice.dims](0.3),
    ]
    return nn.Sequential(*norm_act(dice, width), dice.choice(makers)()), width


def halved(dice: Dice, width: int) -> tuple[nn.Module, int]:
    front, wide = widened(dice, width, 2)
    return nn.Sequential(front, Halved(dice)), wide // 2


def taken(dice: Dice, width: int) -> tuple[nn.Module, int]:
    front, wide = widened(dice, width, 4)
    return nn.Sequential(front, Taken(dice, wide)), wide


def inside(dice: Dice, width: int) -> tuple[nn.Module, int]:
    front, wide = widened(dice, width, 4)
    return nn.Sequential(front, Inside(dice)), wide


def summed(dice: Dice, width: int) -> tuple[nn.Module, int]:
    front, wide = widened(dice, width, 2)
    return nn.Sequential(front, Summed(dice, wide)), wide


def same_width(kind: type[nn.Module]) -> Maker:
    return lambda dice, width: (kind(dice, width), width)


def in_place_view(dice: Dice, width: int) -> tuple[nn.Module, int]:
    front, wide = widened(dice, width, 2)
    block = InPlaceView(dice, wide)
    return nn.Sequential(front, block), block.after.out_channels


def sized(dice: Dice, width: int) -> tuple[nn.Module, int]:
    front, wide = widened(dice, width, 2)
    return nn.Sequential(front, Sized(dice, wide)), wide


def tokens(dice: Dice, width: int) -> tuple[nn.Module, int]:
    wide = dice.width(2)
    return TokenNormed(dice, width, wide), wide


BLOCKS: dict[str, Maker] = {
    "plain": plain,
    "strided": strided,
    "residual": same_width(Residual),
    "concat": concat,
    "halves": halves,
    "shuffle": shuffle,
    "grouped": grouped,
    "excite": same_width(Excite),
    "inverted": same_width(Inverted),
    "twice": same_width(Twice),
    "transposed": transposed,
    "pooled": pooled,
    "in-place view": in_place_view,
    "gated": same_width(Gated),
    "one gate": same_width(OneGate),
    "summary": same_width(Summary),
    "halved": halved,
    "taken": taken,
    "inside": inside,
    "summed": summed,
    "sized": sized,
    "group norm": same_width(GroupNormed),
    "instance norm": same_width(InstanceNormed),
    "token norm": tokens,
}
HEADS = ("pooled", "flat", "hidden", "planes")
RETURNS = ("tensor", "tuple", "dict")


class Network(nn.Module):
    """Blocks behind each other, between a stem for every input and a head."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        dice = Dice(recipe.seed, recipe.dims)
        width = dice.width(2)
        self.returns = recipe.returns
        self.stems = nn.ModuleList(conv_norm(dice, 2, width) for _ in range(recipe.inputs))
        blocks = []
        for name in recipe.blocks:
            block, width = BLOCKS[name](dice, width)
            blocks.append(block)
        self.blocks = nn.Sequential(*blocks)
        self.head = head(dice, recipe.head, width)
        self.aside = CONV[recipe.dims](width, 3, 1)

    def forward(self, *images: torch.Tensor) -> object:
        features = [stem(image) for stem, image in zip(self.stems, images, strict=True)]
        x = self.blocks(sum(features[1:], features[0]))
        if self.returns == "tensor":
            return self.head(x)
        if self.returns == "tuple":
            return self.head(x), self.aside(x)
        return {"scores": self.head(x), "aside": [self.aside(x)]}


def head(dice: Dice, kind: str, width: int) -> nn.Module:
    """From the last block's planes to what the network returns."""
    size = 2**dice.dims
    if kind == "planes":
        return CONV[dice.dims](width, 3, 3, padding=1)
    if kind == "pooled":
        return nn.Sequential(ADAPTIVE[dice.dims](1), nn.Flatten(), nn.Linear(width, 3))
    front = [ADAPTIVE_MAX[dice.dims](2), nn.Flatten()]
    if kind == "flat":
        return nn.Sequential(*front, nn.Linear(width * size, 3))
    hidden = dice.width()
    norm = nn.BatchNorm1d(hidden)
    return nn.Sequential(
        *front, nn.Linear(width * size, hidden, bias=dice.yes()), norm, nn.ReLU(), nn.Dropout(), nn.Linear(hidden, 3)
    )


def images(recipe: Recipe, batch: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """What the network takes: one tensor `(batch, 2, *plane)` for each input."""
    generator = torch.Generator().manual_seed(seed)
    plane = [SIDE[recipe.dims]] * recipe.dims
    return [torch.randn(batch, 2, *plane, dtype=dtype, generator=generator) for _ in range(recipe.inputs)]


def build(recipe: Recipe, rate: float, beta: str) -> Network:
    """The network in double precision, a part of every BatchNorm's channels dead, and its mode as drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = Network(recipe).double()
        kill(model, rate, beta)
        calibrate(model, images(recipe, batch=4, seed=1))
        return model.train(recipe.training)


RECIPES = st.builds(
    Recipe,
    blocks=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=4).map(tuple),
    seed=st.integers(0, 2**20),
    dims=st.sampled_from([2, 2, 2, 1, 3]),
    head=st.sampled_from(HEADS),
    inputs=st.sampled_from([1, 1, 2]),
    returns=st.sampled_from(RETURNS),
    training=st.booleans(),
)
RATES = st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0])
BETAS = st.sampled_from(["zero", "negative", "random"])


def lively(model: nn.Module) -> nn.Module:
    """γ, β and statistics as after training: different for every channel, so that nothing cancels by chance."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low in ((module.weight, 0.3), (module.bias, -0.5), (module.running_var, 0.5)):
                tensor.data = torch.rand(tensor.shape, generator=generator) + low
            module.running_mean.data = torch.randn(module.running_mean.shape, generator=generator)
    return model.eval()
