"""The classifiers of the paper's data sets: CIFAR, TinyImageNet, ImageNet, and Network Slimming's single layer."""

import re

import pytest
import torch
from test_models import count_parameters
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from slimnet import compat
from slimnet.errors import ArchitectureError
from slimnet.models import VGG, BasicNet, build

IMAGENET = {"hidden": "imagenet", "num_classes": 1000}


def on_meta(arch: str, arch_args: dict[str, object]) -> nn.Module:
    """A network that takes no memory and no time; it still runs, on shapes."""
    with torch.device("meta"):
        return build(arch, arch_args).eval()


def images(side: int) -> torch.Tensor:
    return torch.empty(2, 3, side, side, device="meta")


def units(model: nn.Module) -> list[int]:
    return [module.out_features for module in model.modules() if isinstance(module, nn.Linear)]


@pytest.mark.parametrize("arch", ["vgg11", "vgg13", "vgg16", "vgg19"])
@pytest.mark.parametrize(
    ("hidden", "classes", "side", "expected"),
    [
        ("cifar", 100, 32, [512, 100]),
        ("tinyimagenet", 200, 64, [512, 256, 200]),
        ("linear", 10, 32, [10]),
        ("imagenet", 1000, 224, [4096, 4096, 1000]),
        ([7, 5], 3, 48, [7, 5, 3]),
    ],
)
def test_vgg_has_the_head_that_is_named(arch, hidden, classes, side, expected):
    model = on_meta(arch, {"hidden": hidden, "num_classes": classes})
    assert units(model) == expected
    assert model(images(side)).shape == (2, classes)


@pytest.mark.parametrize(
    ("hidden", "classes", "side", "expected"),
    [
        ("cifar", 100, 32, [256, 100]),
        ("tinyimagenet", 200, 64, [512, 256, 200]),
        ("imagenet", 1000, 224, [4096, 2048, 1000]),
        ([], 10, 32, [10]),
        (40, 10, 32, [40, 10]),
        ([40, 30], 10, 32, [40, 30, 10]),
    ],
)
def test_basicnet_has_the_head_that_is_named(hidden, classes, side, expected):
    model = on_meta("basicnet", {"hidden": hidden, "num_classes": classes})
    assert units(model) == expected
    assert model(images(side)).shape == (2, classes)
    assert sum(isinstance(module, nn.BatchNorm1d) for module in model.modules()) == len(expected) - 1


@pytest.mark.parametrize(("pool_after", "side"), [((1, 3, 5), 6), ((1, 2, 3, 5), 3), ((1, 2, 3, 4, 5), 1)])
def test_basicnets_imagenet_head_reads_averages_of_five_by_five_four_apart(pool_after, side):
    """28 × 28, 14 × 14 and 7 × 7 pixels give 6 × 6, 3 × 3 and one average of every channel."""
    model = on_meta("basicnet", {**IMAGENET, "pool_after": pool_after})
    assert model.classifier.fc1.in_features == 512 * side**2
    assert (model.pool.kernel_size, model.pool.stride) == (5, 4)
    assert model(images(224)).shape == (2, 1000)


@pytest.mark.parametrize("name", ["cifar", "linear", "tinyimagenet"])
def test_a_name_stands_for_its_widths(name):
    widths = {"cifar": [512], "linear": [], "tinyimagenet": [512, 256]}[name]
    named, listed = VGG(11, hidden=name), VGG(11, hidden=widths)
    assert {k: v.shape for k, v in named.state_dict().items()} == {k: v.shape for k, v in listed.state_dict().items()}


def test_the_default_head_is_that_of_cifar():
    assert units(VGG(11)) == units(VGG(11, hidden="cifar"))
    assert units(BasicNet()) == units(BasicNet(hidden="cifar"))


# --- ImageNet's own ---


@pytest.mark.parametrize("arch", ["vgg11", "vgg13", "vgg16", "vgg19"])
def test_vggs_imagenet_network_is_torchvisions_without_the_biases_of_its_convolutions(arch):
    """The same tensors under the same names, and the same kinds of layer in the same order."""
    ours = on_meta(arch, IMAGENET)
    with torch.device("meta"):
        theirs = getattr(compat.torchvision().models, f"{arch}_bn")(init_weights=False).eval()
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    convolutions = {name for name, module in theirs.named_modules() if isinstance(module, nn.Conv2d)}
    without = {name: shape for name, shape in shapes.items() if name not in {f"{conv}.bias" for conv in convolutions}}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == without
    assert [type(layer) for layer in ours.classifier] == [type(layer) for layer in theirs.classifier]
    assert ours.pool.output_size == 7
    assert theirs.avgpool.output_size == (7, 7)


def test_vgg11_on_imagenet_has_the_size_of_liu_2017_table_2():
    """132.9 M parameters; the 4.57e10 FLOPs of the table are six times the multiply-accumulates."""
    model = on_meta("vgg11", IMAGENET)
    assert count_parameters(model) == 132_866_088
    assert round(132_866_088 / 1e6, 1) == 132.9
    with FlopCounterMode(display=False) as counter:
        model(images(224)[:1])
    macs = counter.get_total_flops() // 2
    assert macs == 7_609_090_048
    assert round(6 * macs / 1e10, 2) == 4.57


# --- what is refused ---


@pytest.mark.parametrize(
    ("arch", "arch_args", "words"),
    [
        ("vgg16", {"hidden": "imagnet"}, "or one of cifar, tinyimagenet, linear, imagenet; got 'imagnet'"),
        ("vgg16", {"hidden": [512, "x"]}, "hidden must be a whole number of at least 1, got 'x'"),
        ("vgg16", {"hidden": None}, "hidden must be a list of widths such as [512]"),
        ("vgg16", {"hidden": {"cifar": 1}}, "hidden must be a list of widths such as [512]"),
        ("vgg16", {"hidden": []} | {"num_classes": "10"}, "num_classes must be a whole number"),
        ("basicnet", {"hidden": "linear"}, "or one of cifar, tinyimagenet, imagenet; got 'linear'"),
        ("basicnet", {"hidden": True}, "hidden must be a whole number of at least 1, got True"),
        ("basicnet", {"hidden": 2.5}, "hidden must be a list of widths such as [512]"),
        ("basicnet", {"hidden": [8, 0]}, "hidden must be a whole number of at least 1, got 0"),
        (
            "basicnet",
            {"hidden": "imagenet", "pool_after": [1, 2, 3, 4, 5, 6]},
            "the imagenet head averages 5 × 5 pixels, but 6 poolings leave 3",
        ),
    ],
)
def test_a_head_that_is_none_is_refused_in_one_line(arch, arch_args, words):
    with pytest.raises(ArchitectureError, match=re.escape(words)) as caught:
        build(arch, arch_args)
    assert str(caught.value).startswith(f"{arch}: ")
    assert "\n" not in str(caught.value)
