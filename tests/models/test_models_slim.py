"""Every network of ours is slimmed exactly, and what its dead channels allow is really gone."""

from collections.abc import Callable, Iterator

import pytest
import torch
from masking import calibrate, difference, kill, masked, outputs
from torch import nn
from wiring import EXACT

import slimnet
from slimnet.models import BasicNet, CifarDenseNet, PreActResNet, architecture, basicnet, build, vgg


def lived_in(make: Callable[[], nn.Module], images: torch.Tensor, beta: str = "negative") -> nn.Module:
    """The network in double precision with 40 % of every BatchNorm's channels dead."""
    torch.manual_seed(0)
    model = make().double()
    kill(model, 0.4, beta)
    calibrate(model, [images])
    return model


def batch(side: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(count))


def slimmed(make: Callable[[], nn.Module], side: int = 32, beta: str = "negative") -> tuple[nn.Module, nn.Module]:
    """The dense network and its slim one, which gives what the dense one does with the γ at zero that it relies on."""
    model = lived_in(make, batch(side), beta)
    result = slimnet.slim(model, batch(side, 1), tolerance=float("inf"))
    fresh = [batch(side, 3)[:1]]
    assert difference(outputs(masked(model, result.plan), fresh), outputs(result.model, fresh)) < EXACT
    assert result.plan.removed_channels > 0
    assert result.certificate.params_after < result.certificate.params_before
    return model, result.model


SAMPLE = ("basicnet", "vgg11", "resnet20", "densenet40")
"""One of each kind, which a plain run takes."""
NAMES = [
    pytest.param(arch, marks=[] if arch in SAMPLE else [pytest.mark.sweep])
    for arch in architecture.BUILTIN_ARCHITECTURES
]


@pytest.mark.parametrize("arch", NAMES)
def test_every_network_is_slimmed_exactly(arch):
    slimmed(lambda: build(arch))


@pytest.mark.parametrize(
    ("arch", "arch_args", "side"),
    [
        ("resnet20", {"shortcut": "B"}, 32),
        ("vgg11", {"hidden": "tinyimagenet", "num_classes": 20}, 64),
        ("vgg11", {"hidden": "linear"}, 32),
        ("basicnet", {"widths": "64-0.5x"}, 32),
        ("basicnet", {"widths": "32-0.25x", "hidden": "tinyimagenet"}, 64),
        ("basicnet", {"width": 0.25, "negative_slope": 0.01}, 32),
        ("basicnet", {"width": 0.25, "negative_slope": 0.1, "pool_after": [2, 4]}, 32),
        ("densenet40", {"stem": 24, "growth": 4}, 16),
    ],
)
def test_every_variant_is_slimmed_exactly(arch, arch_args, side):
    slimmed(lambda: build(arch, arch_args), side)


@pytest.mark.parametrize(
    ("make", "side"),
    [
        (lambda: PreActResNet(20), 16),
        (lambda: CifarDenseNet(13, growth=6), 16),
        (lambda: build("resnet20"), 32),
        (lambda: BasicNet(width=0.25, negative_slope=0.1), 32),
    ],
)
def test_constants_other_than_zero_are_folded_exactly(make, side):
    """β of either sign, so that dead channels emit constants into zero-padded convolutions."""
    slimmed(make, side, "random")


@pytest.mark.parametrize(
    ("module", "make", "side"),
    [
        (vgg, lambda: build("vgg11", {"hidden": "imagenet"}), 64),
        (basicnet, lambda: build("basicnet", {"width": 0.125, "hidden": "imagenet"}), 224),
    ],
)
def test_imagenets_heads_lose_the_whole_plane_of_a_removed_channel(module, make, side, monkeypatch):
    """With few hidden units, so that the test needs no gigabytes; the plane in front of them is the real one."""
    monkeypatch.setitem(module.HEADS, "imagenet", (24, 20))
    dense, slim = slimmed(make, side)
    first = next(layer for layer in slim.classifier if isinstance(layer, nn.Linear))
    alive = int((last_norm(dense).weight.abs() >= 1e-3).sum())
    assert first.in_features == alive * (49 if module is vgg else 36)


def last_norm(model: nn.Module) -> nn.BatchNorm2d:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)][-1]


# --- how much goes ---


def alive(norm: nn.Module) -> torch.Tensor:
    return norm.weight.abs() >= 1e-3


def test_every_dead_channel_inside_a_bottleneck_is_gone():
    """Behind conv1 and conv2 only one BatchNorm reads a channel; the last stage's sum is read by two."""
    dense, slim = slimmed(lambda: PreActResNet(20), 16)
    before = dict(dense.named_modules())
    for name, conv in slim.named_modules():
        if name.endswith(("conv1", "conv2")) and name.startswith("layer"):
            reader = before[f"{name[:-5]}bn{int(name[-1]) + 1}"]
            assert conv.out_channels == int(alive(reader).sum())
    stream = alive(dense.layer3[1].bn1) | alive(dense.bn)
    widths = {slim.layer3[0].conv3.out_channels, slim.layer3[1].conv3.out_channels, slim.fc.in_features}
    assert max(widths) < 256
    assert slim.layer3[0].downsample[0].out_channels == slim.fc.in_features >= int(stream.sum())


def read_by(model: CifarDenseNet) -> Iterator[tuple[str, torch.Tensor]]:
    """Every convolution by name, and which of its channels any BatchNorm behind it lets through."""
    blocks = ((model.dense1, model.trans1.bn1), (model.dense2, model.trans2.bn1), (model.dense3, model.bn))
    for number, (block, last) in enumerate(blocks, start=1):
        first = "conv1" if number == 1 else f"trans{number - 1}.conv1"
        places = [(first, 0, block[0].bn1.num_features)]
        for index, layer in enumerate(block):
            start = layer.bn1.num_features
            places.append((f"dense{number}.{index}.conv1", start, start + layer.conv1.out_channels))
        norms = [*(layer.bn1 for layer in block), last]
        for readers, (name, start, stop) in enumerate(places):
            yield name, torch.stack([alive(norm)[start:stop] for norm in norms[readers:]]).any(0)


def test_exactly_the_channels_that_no_layer_of_the_block_reads_are_gone():
    """A DenseNet's channel is read by every BatchNorm behind it in its block, and goes when all of them are dead."""
    dense, slim = slimmed(lambda: CifarDenseNet(13), 16)
    after = dict(slim.named_modules())
    expected = {name: max(1, int(passes.sum())) for name, passes in read_by(dense)}
    assert {name: after[name].out_channels for name in expected} == expected
    gone = sum(len(passes) - expected[name] for name, passes in read_by(dense))
    assert gone > 10
