"""Real trained networks on real images: slimming them removes what is dead and changes no prediction."""

import pytest
import torch
from cifar import checkpoint_file, load_cifar10_test, predictions
from torch import nn

import slimnet

DEAD = {"resnet20": 17, "resnet56": 56}
"""How many γ of the published checkpoints are below 1e-3, counted in the files."""


def load(name: str) -> nn.Module:
    return slimnet.load_checkpoint(checkpoint_file(name), name).eval()


def inner_dead_channels(model: nn.Module) -> int:
    """Dead channels between the two convolutions of a block, which nothing else reads (oracle: γ itself)."""
    scales = [parameter for name, parameter in model.named_parameters() if name.endswith(".bn1.weight")]
    return sum(int((scale.abs() < 1e-3).sum()) for scale in scales)


@pytest.mark.parametrize("name", DEAD)
def test_slimming_removes_every_dead_channel_that_only_one_layer_reads(name):
    """The others lie on a shortcut, where the block before still sends something."""
    model = load(name)
    slimmed = slimnet.slim(model, torch.randn(2, 3, 32, 32))
    assert slimmed.plan.dead_channels == DEAD[name]
    assert slimmed.plan.removed_channels >= inner_dead_channels(model) > 0
    assert slimmed.certificate.params_after == sum(parameter.numel() for parameter in slimmed.model.parameters())
    assert slimmed.certificate.params_after < slimmed.certificate.params_before


def unchanged(name: str, images: torch.Tensor) -> bool:
    model = load(name)
    slimmed = slimnet.slim(model, images[:2])
    return torch.equal(predictions(slimmed.model, images), predictions(model, images))


def test_no_prediction_of_resnet20_changes_on_the_first_1000_test_images():
    images, _ = load_cifar10_test()
    assert unchanged("resnet20", images[:1000])


@pytest.mark.sweep
@pytest.mark.parametrize("name", DEAD)
def test_no_prediction_changes_on_all_test_images(name):
    images, _ = load_cifar10_test()
    assert unchanged(name, images)
