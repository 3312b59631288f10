"""The recipes of Li et al. 2017 as data: networks, layers, and the number of filters that each layer keeps."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from slimnet.errors import UsageError, check_name
from slimnet.methods.candidates import Channels
from slimnet.methods.filter_norms import filter_norms
from slimnet.methods.remove import Selection
from slimnet.models.vgg import STAGES
from slimnet.modules.example_inputs import ExampleInputs, check_inputs

Widths = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Published:
    """A published pruning of one network.

    `widths` are the width of a layer and the number of filters that it keeps, for every layer of `network` whose path
    matches `pattern`. The filters with the smallest sums |F| are removed; `followers` are layers that lose the same
    channels as the layer they follow.
    """

    network: str
    pattern: str
    widths: Widths
    followers: Mapping[str, str]


def published(name: str, model: nn.Module, inputs: ExampleInputs) -> Selection:
    """The channels that Li et al. 2017 remove in a recipe, such as "ResNet-56-B".

    Raises:
        UsageError: there is no such recipe, or it is for another network.
        TraceError, InputError: as `slimnet.slim` does.
    """
    check_name("published recipe", name, RECIPES)
    recipe = RECIPES[name]
    channels = Channels.of(model, check_inputs(model, inputs))
    check_network(name, recipe, channels)
    chosen = {}
    for layer, (width, kept) in recipe.widths.items():
        leader = recipe.followers.get(layer, layer)
        lowest = np.argsort(filter_norms(model, channels, leader), kind="stable")[: width - kept]
        if lowest.size:
            chosen[layer] = tuple(np.sort(lowest).tolist())
    return Selection(f"li2017 ({name})", chosen)


def check_network(name: str, recipe: Published, channels: Channels) -> None:
    """Refuse a network that is not the recipe's.

    Raises:
        UsageError: naming the first layer that differs.
    """
    present = {layer: sets.size for layer, sets in channels.layers.items() if re.fullmatch(recipe.pattern, layer)}
    expected = {layer: width for layer, (width, _) in recipe.widths.items()}
    for layer in [*expected, *present]:
        if present.get(layer) != expected.get(layer):
            wanted, found = (f"{n} channels" if n else "none" for n in (expected.get(layer), present.get(layer)))
            raise UsageError(f"{name} is for {recipe.network}: {layer} has {wanted} there, and {found} in this network")


def vgg(kept: tuple[int, ...]) -> Published:
    """A recipe for VGG-16 on CIFAR with the number of filters that each convolution keeps."""
    names, position = [], 0
    for stage in STAGES[16]:
        for _ in stage:
            names.append(f"features.{position}")
            position += 3
        position += 1
    dense = [width for stage in STAGES[16] for width in stage]
    widths = {layer: (width, left) for layer, width, left in zip(names, dense, kept, strict=True)}
    return Published("vgg16", r"features\.\d+", widths, {})


def blocks(
    network: str, counts: tuple[int, ...], widths: tuple[int, ...], pruned: tuple[float, ...], skipped: tuple[int, ...]
) -> Published:
    """A recipe for a residual network of basic blocks: prunes a share of each block's first convolution, by stage.

    `counts` are the numbers of blocks of each stage. `skipped` are layers that are not pruned, numbered as in the
    paper: the first convolution of the network is 1 and those of the blocks are 2, 4, 6, ...
    """
    found, number = {}, 2
    for stage, (count, width, share) in enumerate(zip(counts, widths, pruned, strict=True), start=1):
        for block in range(count):
            found[f"layer{stage}.{block}.conv1"] = (width, width if number in skipped else int(width * (1 - share)))
            number += 2
    return Published(network, r"layer\d\.\d+\.conv1", found, {})


def third_stream(share: float) -> Published:
    """The recipe for ResNet-34 that prunes the residual stream of the third stage, by the filters of its shortcut."""
    leader, width = "layer3.0.downsample.0", 256
    writers = [leader, *(f"layer3.{block}.conv2" for block in range(RESNET34[0][2]))]
    widths = {layer: (width, int(width * (1 - share))) for layer in writers}
    return Published(
        "torchvision:resnet34", r"layer3\.\d+\.(conv2|downsample\.0)", widths, dict.fromkeys(writers, leader)
    )


STAGE_WIDTHS = (16, 32, 64)
RESNET34 = ((3, 4, 6, 3), (64, 128, 256, 512))
INSENSITIVE = (2, 8, 14, 16, 26, 28, 30, 32)
RECIPES: Mapping[str, Published] = {
    "VGG-16-A": vgg((32, 64, 128, 128, *[256] * 9)),
    "ResNet-56-A": blocks("resnet56", (9, 9, 9), STAGE_WIDTHS, (0.1, 0.1, 0.1), (16, 20, 38, 54)),
    "ResNet-56-B": blocks("resnet56", (9, 9, 9), STAGE_WIDTHS, (0.6, 0.3, 0.1), (16, 18, 20, 34, 38, 54)),
    "ResNet-110-A": blocks("resnet110", (18, 18, 18), STAGE_WIDTHS, (0.5, 0.0, 0.0), (36,)),
    "ResNet-110-B": blocks("resnet110", (18, 18, 18), STAGE_WIDTHS, (0.5, 0.4, 0.3), (36, 38, 74)),
    "ResNet-34-A": blocks("torchvision:resnet34", *RESNET34, (0.3, 0.3, 0.3, 0.0), INSENSITIVE),
    "ResNet-34-B": blocks("torchvision:resnet34", *RESNET34, (0.5, 0.6, 0.4, 0.0), INSENSITIVE),
    "ResNet-34-C": third_stream(0.2),
}
"""The recipes by their names in tables 1 and 3 of the paper (sections 4.1 to 4.3)."""
