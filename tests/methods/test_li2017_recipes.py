"""Li et al. 2017 and Network Slimming: removing what they removed gives the sizes that they print."""

import pytest
import torch
from torch import nn

from slimnet.errors import UsageError
from slimnet.methods import RECIPES, Selection, plan_for, published
from slimnet.models import build
from slimnet.surgery.plan import SurgeryPlan

SMALL, LARGE = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 224, 224)


def reduction(before: int, after: int) -> float:
    return 100 * (1 - after / before)


def followed(name: str) -> tuple[nn.Module, SurgeryPlan]:
    arch = RECIPES[name].network
    model = build(arch).eval()
    images = LARGE if arch.startswith("torchvision") else SMALL
    return model, plan_for(model, images, published(name, model, images))


@pytest.mark.parametrize(
    ("name", "macs", "params", "macs_printed", "macs_pruned", "params_pruned"),
    [
        ("VGG-16-A", 206_279_680, 5_397_034, "2.06e+08", 34.2, 64.0),
        ("ResNet-56-A", 112_435_840, 773_336, "1.12e+08", 10.4, 9.4),
        ("ResNet-56-B", 90_907_264, 735_712, "9.09e+07", 27.6, 13.7),
        ("ResNet-110-A", 212_779_648, 1_688_522, "2.13e+08", 15.9, 2.3),
        ("ResNet-110-B", 155_124_352, 1_168_424, "1.55e+08", 38.6, 32.4),
    ],
)
def test_sizes_on_cifar_are_those_of_li_2017_table_1(name, macs, params, macs_printed, macs_pruned, params_pruned):
    """The integers were counted layer by layer; the table's percentages are of its rounded numbers, ± 0.06."""
    _, plan = followed(name)
    assert (plan.macs_after, plan.params_after) == (macs, params)
    assert f"{macs:.2e}" == macs_printed
    assert reduction(plan.macs_before, macs) == pytest.approx(macs_pruned, abs=0.06)
    assert reduction(plan.params_before, params) == pytest.approx(params_pruned, abs=0.06)


@pytest.mark.parametrize(
    ("name", "macs", "params", "macs_pruned", "params_pruned"),
    [
        ("ResNet-34-A", "3.08e+09", "19.98", 15.5, 7.6),
        ("ResNet-34-B", "2.76e+09", "19.30", 24.2, 10.8),
        ("ResNet-34-C", "3.37e+09", "20.07", 7.4, 7.2),
    ],
)
def test_sizes_on_imagenet_are_those_of_li_2017_table_1(name, macs, params, macs_pruned, params_pruned):
    """Their ResNet-34 has 3.64e9 MACs and 21.6 M parameters: the shortcuts' projections are not counted."""
    model, plan = followed(name)
    counted = [layer for layer in plan.layers if "downsample" not in layer.name]
    before, after = (sum(getattr(layer, side) for layer in counted) for side in ("macs_before", "macs_after"))
    assert f"{before:.2e}" == "3.64e+09"
    assert f"{after:.2e}" == macs
    assert round(reduction(before, after), 1) == macs_pruned
    dense = sum(p.numel() for name, p in model.named_parameters() if "downsample" not in name)
    assert f"{dense / 1e6:.1f}" == "21.6"
    left = dense - (plan.params_before - plan.params_after) + projections_lost(model, plan)
    assert f"{left / 1e6:.2f}" == params
    assert round(reduction(dense, left), 1) == params_pruned


def projections_lost(model: nn.Module, plan: SurgeryPlan) -> int:
    """The parameters that go from the shortcuts' projections."""
    shapes = {name: list(p.shape) for name, p in model.named_parameters() if "downsample" in name}
    before = sum(torch.Size(shape).numel() for shape in shapes.values())
    for cut in plan.cuts:
        if cut.tensor in shapes:
            shapes[cut.tensor][cut.axis] = len(cut.keep)
    return before - sum(torch.Size(shape).numel() for shape in shapes.values())


def test_widths_of_network_slimming_give_its_counts():
    """Table 5's compact VGG-19 is the fourth pass of table 4: 95.6 % of the parameters and 77.2 % of the FLOPs less."""
    widths = (22, 62, 83, 119, 193, 168, 85, 40, 32, 32, 32, 32, 32, 32, 32, 38)
    model = build("vgg19", {"hidden": "linear"}).eval()
    layers = {name: each.out_channels for name, each in model.named_modules() if isinstance(each, nn.Conv2d)}
    channels = {layer: tuple(range(left, layers[layer])) for layer, left in zip(layers, widths, strict=True)}
    plan = plan_for(model, SMALL, Selection("liu2017", channels))
    assert (plan.params_after, plan.macs_after) == (885_934, 90_662_204)
    assert round(reduction(plan.params_before, plan.params_after), 1) == 95.6
    assert round(reduction(plan.macs_before, plan.macs_after), 1) == 77.2


def test_the_smallest_filters_go():
    """Oracle: the sums of absolute weights, sorted here."""
    model = build("resnet56").eval()
    selection = published("ResNet-56-B", model, SMALL)
    weight = model.layer1[2].conv1.weight.detach().abs().sum((1, 2, 3))
    assert selection.channels["layer1.2.conv1"] == tuple(weight.argsort()[:10].sort().values.tolist())
    assert "layer1.8.conv1" not in selection.channels, "layer 18 is left whole"


@pytest.mark.parametrize(
    ("name", "arch", "message"),
    [
        ("ResNet-56-A", "resnet110", "ResNet-56-A is for resnet56: layer1.9.conv1 has none there, and 16 channels in"),
        ("VGG-16-A", "vgg19", "VGG-16-A is for vgg16: features.24 has 512 channels there, and none in this"),
        ("ResNet-34-C", "resnet56", "layer3.0.downsample.0 has 256 channels there, and none in this network"),
        ("ResNet-56-C", "resnet56", r"no published recipe 'ResNet-56-C'; did you mean ResNet-56-B\? \(VGG-16-A, "),
    ],
)
def test_a_recipe_for_another_network_is_refused(name, arch, message):
    with pytest.raises(UsageError, match=message) as caught:
        published(name, build(arch), SMALL)
    assert "\n" not in str(caught.value)
