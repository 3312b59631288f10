"""Network Slimming's networks against the numbers it prints and against their definition written with functions."""

import re

import pytest
import torch
from test_models import count_macs, count_parameters, randomise_statistics
from torch import nn
from torch.nn import functional as F

from slimnet.errors import ArchitectureError
from slimnet.models import CifarDenseNet, PreActResNet, build

State = dict[str, torch.Tensor]
LINEAR = {"hidden": "linear"}


def count_normalised(model: nn.Module) -> int:
    """The values that BatchNorm normalises for one 32 × 32 image."""
    sizes: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.numel()))
    model.eval().to("meta")(torch.empty(1, 3, 32, 32, device="meta"))
    return sum(sizes)


# --- published numbers ---


@pytest.mark.parametrize(
    ("arch", "arch_args", "parameters", "millions", "macs"),
    [
        ("vgg19", LINEAR, 20_035_018, 20.04, 398_136_320),
        ("vgg19", {**LINEAR, "num_classes": 100}, 20_081_188, 20.08, 398_182_400),
        ("resnet164", {}, 1_703_258, 1.70, 247_646_720),
        ("resnet164", {"num_classes": 100}, 1_726_388, 1.73, 247_669_760),
        ("densenet40", {}, 1_019_722, 1.02, 264_812_928),
        ("densenet40", {"num_classes": 100}, 1_060_132, 1.06, 264_853_248),
    ],
)
def test_size_is_that_of_liu_2017_table_1(arch, arch_args, parameters, millions, macs):
    """The parameters to the digits that are printed; the integers were counted by hand, layer by layer."""
    model = build(arch, arch_args)
    assert count_parameters(model) == parameters
    assert round(parameters / 1e6, 2) == millions
    assert count_macs(model) == macs


@pytest.mark.parametrize("classes", [10, 100])
def test_vgg19_flops_are_those_of_liu_2017_when_batchnorm_counts(classes):
    """7.97e8, and a slimming repository's 398.44 M multiply-adds: one more for every value that is normalised."""
    model = build("vgg19", {**LINEAR, "num_classes": classes})
    multiply_adds = count_macs(model) + count_normalised(model)
    assert round(2 * multiply_adds / 1e6) == 797
    assert classes == 100 or round(multiply_adds / 1e6, 2) == 398.44


@pytest.mark.parametrize(
    ("arch", "classes", "millions"),
    [
        pytest.param("resnet164", 10, 499, marks=pytest.mark.sweep),
        pytest.param("resnet164", 100, 500, marks=pytest.mark.sweep),
        ("densenet40", 10, 533),
        ("densenet40", 100, 533),
    ],
)
def test_flops_of_liu_2017_lie_between_those_without_batchnorm_and_with_it(arch, classes, millions):
    """How the table counts these two is not printed, and no rule that anybody would write gives its digits for both.

    Tried: twice the MACs, with and without the projections and the first convolution, and 0 to 4 operations, halves
    too, for every value that is normalised, rectified, added, concatenated or pooled, or that could have a bias.
    What meets all four weighs like things differently, such as 1.5 for a block's first BatchNorm and 1 for others.
    """
    model = build(arch, {"num_classes": classes})
    macs, normalised = count_macs(model), count_normalised(model)
    assert 2 * macs < millions * 1e6 < 2 * (macs + normalised)
    assert 2 * macs == pytest.approx(millions * 1e6, rel=0.01)


# --- the function they compute ---


def norm_relu(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts).relu()


def reference_resnet(state: State, blocks: int, images: torch.Tensor) -> torch.Tensor:
    """A pre-activation bottleneck network written down once more, from the weights alone."""
    x = F.conv2d(images, state["conv1.weight"], padding=1)
    for name in [f"layer{stage}.{index}" for stage in (1, 2, 3) for index in range(blocks)]:
        stride = 2 if name in ("layer2.0", "layer3.0") else 1
        inner = F.conv2d(norm_relu(state, f"{name}.bn1", x), state[f"{name}.conv1.weight"])
        inner = F.conv2d(norm_relu(state, f"{name}.bn2", inner), state[f"{name}.conv2.weight"], None, stride, 1)
        inner = F.conv2d(norm_relu(state, f"{name}.bn3", inner), state[f"{name}.conv3.weight"])
        projection = state.get(f"{name}.downsample.0.weight")
        x = inner + (x if projection is None else F.conv2d(x, projection, stride=stride))
    return F.linear(norm_relu(state, "bn", x).mean((2, 3)), state["fc.weight"], state["fc.bias"])


def reference_densenet(state: State, layers: int, images: torch.Tensor) -> torch.Tensor:
    """Every layer reads the list of all the maps before it."""
    maps = [F.conv2d(images, state["conv1.weight"], padding=1)]
    for block in (1, 2, 3):
        for name in [f"dense{block}.{index}" for index in range(layers)]:
            read = norm_relu(state, f"{name}.bn1", torch.cat(maps, 1))
            maps.append(F.conv2d(read, state[f"{name}.conv1.weight"], padding=1))
        if block < 3:
            read = norm_relu(state, f"trans{block}.bn1", torch.cat(maps, 1))
            maps = [F.avg_pool2d(F.conv2d(read, state[f"trans{block}.conv1.weight"]), 2)]
    pooled = norm_relu(state, "bn", torch.cat(maps, 1)).mean((2, 3))
    return F.linear(pooled, state["fc.weight"], state["fc.bias"])


@torch.no_grad()
def test_preactivation_resnet_computes_its_definition():
    model = randomise_statistics(PreActResNet(20, num_classes=7)).double()
    images = torch.randn(2, 3, 32, 16, dtype=torch.float64)
    torch.testing.assert_close(model(images), reference_resnet(model.state_dict(), 2, images))


@torch.no_grad()
@pytest.mark.parametrize("stem", [16, 5])
def test_densenet_computes_its_definition(stem):
    model = randomise_statistics(CifarDenseNet(13, num_classes=7, growth=4, stem=stem)).double()
    images = torch.randn(2, 3, 32, 16, dtype=torch.float64)
    torch.testing.assert_close(model(images), reference_densenet(model.state_dict(), 3, images))


# --- what they are made of ---


def keys(model: nn.Module) -> set[str]:
    """The names of modules with tensors."""
    return {key.rpartition(".")[0] for key in model.state_dict()}


def test_resnet164_has_the_keys_of_the_published_repository():
    blocks = [f"layer{stage}.{index}" for stage in (1, 2, 3) for index in range(18)]
    inside = {f"{block}.{kind}{number}" for block in blocks for kind in ("bn", "conv") for number in (1, 2, 3)}
    downsamples = {f"layer{stage}.0.downsample.0" for stage in (1, 2, 3)}
    assert keys(build("resnet164")) == {"conv1", "bn", "fc"} | inside | downsamples


def test_densenet40_has_the_keys_and_with_another_stem_the_shapes_of_the_published_repository():
    units = [f"dense{block}.{index}" for block in (1, 2, 3) for index in range(12)] + ["trans1", "trans2"]
    model = build("densenet40", {"stem": 24})
    assert keys(model) == {"conv1", "bn", "fc"} | {f"{unit}.{part}" for unit in units for part in ("bn1", "conv1")}
    shapes = [tuple(model.state_dict()[f"{name}.weight"].shape) for name in ("conv1", "dense1.11.conv1", "fc")]
    assert shapes == [(24, 3, 3, 3), (12, 24 + 11 * 12, 3, 3), (10, 24 + 36 * 12)]


@pytest.mark.parametrize("make", [PreActResNet, CifarDenseNet])
def test_initialisation_is_hes_by_outputs_and_half_a_scale(make):
    """Var(w) = 2 / (k² · out_channels), γ = 0.5, β = 0."""
    torch.manual_seed(0)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            fan = module.kernel_size[0] ** 2 * module.out_channels
            assert module.weight.var().item() == pytest.approx(2 / fan, rel=0.1)
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 0.5).all() and (module.bias == 0).all())


@pytest.mark.parametrize("arch", ["resnet164", "densenet40"])
def test_any_number_of_channels_and_classes_and_any_size(arch):
    with torch.device("meta"):
        model = build(arch, {"in_channels": 1, "num_classes": 3}).eval()
        assert model(torch.empty(2, 1, 64, 36)).shape == (2, 3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PreActResNet(163), "depth must be 9n + 2 (11, 20, 164, ...), got 163"),
        (lambda: PreActResNet(2), "depth must be 9n + 2"),
        (lambda: PreActResNet("164"), "depth must be a whole number of at least 1, got '164'"),
        (lambda: PreActResNet(11, num_classes=0), "num_classes must be a whole number of at least 1, got 0"),
        (lambda: CifarDenseNet(41), "depth must be 3n + 4 (7, 10, 40, 100, ...), got 41"),
        (lambda: CifarDenseNet(4), "depth must be 3n + 4"),
        (lambda: CifarDenseNet(growth=0), "growth must be a whole number of at least 1, got 0"),
        (lambda: CifarDenseNet(stem=2.0), "stem must be a whole number of at least 1, got 2.0"),
        (lambda: CifarDenseNet(in_channels=True), "in_channels must be a whole number of at least 1, got True"),
        (lambda: build("resnet164", {"shortcut": "B"}), "resnet164 takes no argument 'shortcut'; it takes num_classes"),
        (lambda: build("densenet40", {"depth": 7}), "densenet40 takes no argument 'depth'"),
        (lambda: build("densenet40", {"growth": "x"}), "densenet40: growth must be a whole number"),
        (lambda: build("resnet165"), "did you mean resnet164"),
        (lambda: build("densenet-40"), "did you mean densenet40"),
        (lambda: build("xyzzy"), "resnet110, resnet164, densenet40, torchvision:NAME"),
    ],
)
def test_what_makes_no_network_is_refused_in_one_line(make, words):
    with pytest.raises(ArchitectureError, match=re.escape(words)) as caught:
        make()
    assert "\n" not in str(caught.value)
