"""Our networks against published numbers and other implementations; architectures by name."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from slimnet import compat
from slimnet.errors import ArchitectureError
from slimnet.models import (
    VGG,
    CifarResNet,
    PadShortcut,
    build,
)


def count_macs(model: nn.Module) -> int:
    """Multiply-accumulates for one 32 × 32 image by torch's own counter, which counts each as two FLOPs."""
    with FlopCounterMode(display=False) as counter:
        model.eval().to("meta")(torch.empty(1, 3, 32, 32, device="meta"))
    return counter.get_total_flops() // 2


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def randomise_statistics(model: nn.Module) -> nn.Module:
    """Give every BatchNorm statistics and a scale of its own, so that skipping one changes the output."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.running_var, 0.5), (module.bias, -0.5)):
                nn.init.uniform_(tensor, low, low + 1)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
    return model.eval()


# --- published numbers ---


@pytest.mark.parametrize(
    ("arch", "arch_args", "macs", "parameters"),
    [
        # Li et al. 2017 print them rounded in table 1; these are the counts that round to what they print.
        ("vgg16", {}, 313_463_808, 14_987_722),
        ("resnet56", {}, 125_485_696, 853_018),
        ("resnet110", {}, 252_887_680, 1_727_962),
    ],
)
def test_size_is_that_of_li_2017(arch, arch_args, macs, parameters):
    model = build(arch, arch_args)
    assert count_parameters(model) == parameters
    assert count_macs(model) == macs


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_resnet_size_is_that_of_he_2016_table_6(depth, millions):
    digits = 1 if depth == 110 else 2
    assert round(count_parameters(build(f"resnet{depth}")) / 1e6, digits) == millions


def test_vgg19_with_one_linear_layer_has_the_size_of_liu_2017_table_1():
    """20.04 M parameters; 7.97e8 FLOPs, twice the multiply-accumulates and a little more (0.1 %)."""
    model = build("vgg19", {"hidden": []})
    assert round(count_parameters(model) / 1e6, 2) == 20.04
    assert 2 * count_macs(model) == pytest.approx(7.97e8, rel=1e-3)


@pytest.mark.parametrize(("depth", "channels"), [(11, 2752), (16, 4224), (19, 5504)])
def test_vgg_has_the_channels_that_mehta_2019_count(depth, channels):
    """Tables 9, 8 and 10: the features of all the convolutions."""
    model = build(f"vgg{depth}")
    assert sum(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)) == channels


# --- the function they compute ---


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg_features_equal_torchvisions(depth):
    """With the same weights (and torchvision's convolution biases at zero) both give the same features."""
    ours = randomise_statistics(VGG(depth)).features
    theirs = getattr(compat.torchvision().models, f"vgg{depth}_bn")(num_classes=2, init_weights=False).features
    theirs.load_state_dict(ours.state_dict(), strict=False)
    for module in theirs:
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.bias)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs.eval()(images))


def reference_resnet(state: dict[str, torch.Tensor], blocks: int, images: torch.Tensor) -> torch.Tensor:
    """He et al.'s section 4.2 written down once more, from the weights alone."""

    def conv_norm(x: torch.Tensor, conv: str, norm: str, stride: int, padding: int = 1) -> torch.Tensor:
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=padding)
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return F.batch_norm(x, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"])

    x = conv_norm(images, "conv1", "bn1", 1).relu()
    for block in [f"layer{stage}.{index}" for stage in (1, 2, 3) for index in range(blocks)]:
        widens = block in ("layer2.0", "layer3.0")
        stride = 2 if widens else 1
        inner = conv_norm(x, f"{block}.conv1", f"{block}.bn1", stride).relu()
        if f"{block}.shortcut.0.weight" in state:
            x = conv_norm(x, f"{block}.shortcut.0", f"{block}.shortcut.1", 2, padding=0)
        elif widens:
            half = torch.zeros_like(x[:, : x.shape[1] // 2, ::2, ::2])
            x = torch.cat([half, x[:, :, ::2, ::2], half], dim=1)
        x = (conv_norm(inner, f"{block}.conv2", f"{block}.bn2", 1) + x).relu()
    return F.linear(x.mean((2, 3)), state["linear.weight"], state["linear.bias"])


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_resnet_computes_the_papers_function(shortcut):
    model = randomise_statistics(build("resnet20", {"shortcut": shortcut, "num_classes": 7}))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference_resnet(model.state_dict(), 3, images))


def test_option_b_adds_two_projections_with_batchnorm():
    difference = count_parameters(build("resnet20", {"shortcut": "B"})) - count_parameters(build("resnet20"))
    assert difference == (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)


def test_pad_shortcut_follows_its_attributes():
    """Surgery narrows a network by setting `before` and `after`; the next forward must use them."""
    shortcut = PadShortcut(2, before=8, after=8)
    shortcut.before, shortcut.after = 1, 3
    x = torch.randn(2, 5, 4, 6)
    expected = torch.zeros(2, 9, 2, 3)
    expected[:, 1:6] = x[:, :, [0, 2]][:, :, :, [0, 2, 4]]
    assert torch.equal(shortcut(x), expected)
    assert not list(shortcut.parameters())


def test_a_resnet_whose_inner_width_was_cut_by_hand_still_runs():
    """Nothing in forward knows a width: a block without its zeroed channel computes what it did with it."""
    dense = randomise_statistics(build("resnet20"))
    block = dense.layer2[0]
    with torch.no_grad():
        block.bn1.weight[-1] = block.bn1.bias[-1] = 0
        slim = copy.deepcopy(dense)
        conv1, bn1, conv2 = slim.layer2[0].conv1, slim.layer2[0].bn1, slim.layer2[0].conv2
        conv1.weight = nn.Parameter(conv1.weight[:-1])
        conv2.weight = nn.Parameter(conv2.weight[:, :-1])
        bn1.weight, bn1.bias = nn.Parameter(bn1.weight[:-1]), nn.Parameter(bn1.bias[:-1])
        bn1.running_mean, bn1.running_var = bn1.running_mean[:-1], bn1.running_var[:-1]
        images = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(slim(images), dense(images))


@pytest.mark.parametrize("arch", ["vgg11", "resnet20"])
def test_any_number_of_channels_and_classes(arch):
    model = build(arch, {"in_channels": 1, "num_classes": 3}).eval()
    assert model(torch.zeros(2, 1, 64, 32)).shape == (2, 3)


def test_vgg_head_has_the_hidden_layers_it_is_given():
    widths = [m.out_features for m in VGG(11, hidden=[20, 30]).modules() if isinstance(m, nn.Linear)]
    assert widths == [20, 30, 10]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: VGG(12), "depth must be one of 11, 13, 16, 19, got 12"),
        (lambda: CifarResNet(21), r"depth must be 6n \+ 2"),
        (lambda: CifarResNet(2), r"depth must be 6n \+ 2"),
        (lambda: CifarResNet(20, num_classes=True), "num_classes must be a whole number"),
        (lambda: VGG(16, hidden=[0]), "hidden must be a whole number"),
    ],
)
def test_constructors_refuse_what_makes_no_network(make, words):
    with pytest.raises(ArchitectureError, match=words):
        make()
