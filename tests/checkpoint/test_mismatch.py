"""A checkpoint that does not fit is distinguished from one of another architecture, with what would fit."""

import json
import re
from functools import partial

import pytest
import torch
from checkpoints import refusal, save, telling_resnet

from slimnet.checkpoint import load_checkpoint
from slimnet.models import build


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return telling_resnet().state_dict()


@pytest.fixture
def write(tmp_path):
    """`torch.save` into this test's own folder; returns the path."""
    return partial(save, tmp_path)


def test_differences_are_listed_the_shortest_list_first(write, state):
    del state["bn1.bias"]
    state["linear.weight"] = torch.rand(10, 32)
    state["conv1.weight"] = torch.rand(16, 1, 3, 3)
    for index in range(7):
        state[f"extra{index}"] = torch.rand(1)
    assert refusal(write(state)) == (
        "does not fit resnet20: 1 missing (bn1.bias); "
        "2 misshapen (conv1.weight is 16×1×3×3, not 16×3×3×3, linear.weight is 10×32, not 10×64); "
        "7 unexpected (extra0, extra1, extra2, extra3 and 3 more)"
    )


@pytest.mark.parametrize(
    ("theirs", "ours", "named"),
    [
        ("resnet56", "resnet20", "resnet56"),
        ("resnet20", "resnet56", "resnet20"),
        ("resnet110", "vgg16", "resnet110"),
        ("vgg11", "basicnet", "vgg11"),
        ("basicnet", "vgg19", "basicnet"),
        ("resnet20", "torchvision:resnet18", "resnet20"),
        ("torchvision:resnet18", "resnet20", "torchvision:resnet18"),
        ("torchvision:mobilenet_v2", "torchvision:mobilenet_v3_small", "torchvision:mobilenet_v2"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_recognised(write, theirs, ours, named):
    message = refusal(write(build(theirs).state_dict()), ours)
    assert message == f"looks like another architecture than {ours}: it fits {named}"


def test_another_architecture_is_recognised_with_the_arguments_it_needs(write):
    path = write(build("resnet32", {"shortcut": "B", "num_classes": 7}).state_dict())
    message = refusal(path, "resnet44")
    assert message.startswith("looks like another architecture than resnet44: it fits resnet32 with --arch-args '")
    arguments = json.loads(re.search(r"--arch-args '(.*)'", message)[1])
    load_checkpoint(path, "resnet32", arguments)


def test_an_architecture_unlike_all_we_know_is_still_called_another(write):
    strange = {f"stem.{index}.weight": torch.rand(3, 3) for index in range(40)}
    message = refusal(write(strange))
    assert message.startswith("looks like another architecture than resnet20, 0 tensors fit: 40 unexpected (stem.0")


@pytest.mark.parametrize(
    ("arch", "arch_args"),
    [("resnet20", {"shortcut": "B"}), ("vgg11", {"hidden": [8]}), ("torchvision:shufflenet_v2_x0_5", {})],
)
def test_another_number_of_classes_says_which_arguments_fit(write, arch, arch_args):
    path = write(build(arch, {**arch_args, "num_classes": 37}).state_dict())
    message = refusal(path, arch, arch_args)
    assert message.startswith("has 37 classes where ")
    suggested = json.loads(re.search(r"--arch-args '(.*)'$", message)[1])
    assert suggested == {**arch_args, "num_classes": 37}
    load_checkpoint(path, arch, suggested)


def test_another_head_of_a_factory_that_counts_otherwise_is_described(write):
    path = write({"weight": torch.rand(7, 2), "bias": torch.rand(7)})
    message = refusal(path, "torch.nn:Linear", {"in_features": 2, "out_features": 3})
    assert message.startswith("has 7 outputs where torch.nn:Linear (in_features=2, out_features=3) has 3")


def test_a_narrower_network_points_to_its_width_and_to_bundles(write):
    message = refusal(write(build("basicnet", {"width": 0.25}).state_dict()), "basicnet")
    assert message.startswith("has the tensors of basicnet but narrower ones (features.conv1.weight is 16×3×5×5")
    assert "slimnet.load" in message


def test_suggestions_leave_the_random_state_alone(write):
    path = write(build("resnet20").state_dict())
    torch.manual_seed(1)
    expected = (build("resnet56"), torch.rand(3))[1]
    torch.manual_seed(1)
    refusal(path, "resnet56")
    assert torch.equal(torch.rand(3), expected)
