"""Under the default device meta, which holds no values, work gives what it gives without it, or says what it needs."""

from collections.abc import Callable, Iterator

import pytest
import torch
from bundles import ARGS, SHAPE, assert_same_state, basic_net, refusal
from torch import nn

import slimnet
from slimnet.data import load_data
from slimnet.errors import UsageError
from slimnet.training import Recipe, train
from slimnet.training.finetune import Finetuning

IMAGES = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
RECIPE = Recipe(arch="basicnet", arch_args=ARGS | {"num_classes": 10}, data="digits", iterations=3, batch_size=8)


@pytest.fixture(params=["context", "default"])
def on_meta(request) -> Iterator[None]:
    """Meta as the device on which tensors are made, by either way of saying so."""
    if request.param == "context":
        with torch.device("meta"):
            yield
        return
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@pytest.fixture(scope="module")
def made(tmp_path_factory, operators_read_once):
    folder = tmp_path_factory.mktemp("meta")
    torch.save(basic_net().state_dict(), folder / "net.pt")
    slimmed = slimnet.slim(basic_net(), IMAGES)
    slimnet.save(slimmed, folder / "slim")
    return folder, basic_net(), slimmed


@pytest.mark.usefixtures("on_meta")
def test_a_checkpoint_fills_its_network(made):
    folder, dense, _ = made
    assert_same_state(slimnet.load_checkpoint(folder / "net.pt", "basicnet", ARGS).state_dict(), dense.state_dict())


@pytest.mark.usefixtures("on_meta")
def test_a_bundle_is_loaded_and_verified(made):
    folder, dense, slimmed = made
    assert_same_state(slimnet.load(folder / "slim").state_dict(), slimmed.model.state_dict())
    assert slimnet.verify_bundle(folder / "slim", dense=dense).certified


@pytest.mark.usefixtures("on_meta")
def test_a_network_is_slimmed_and_saved_as_ever(made, tmp_path):
    _, dense, slimmed = made
    again = slimnet.slim(dense, IMAGES)
    assert_same_state(again.model.state_dict(), slimmed.model.state_dict())
    assert again.certificate == slimmed.certificate
    slimnet.save(again, tmp_path / "slim")
    assert slimnet.verify_bundle(tmp_path / "slim").certified


@pytest.mark.usefixtures("on_meta")
def test_a_network_is_trained():
    """Oracle: the same training without the default device."""
    found = train(RECIPE, load_data("digits"))
    progress = list(found)
    assert progress
    with torch.device("cpu"):
        expected = train(RECIPE, load_data("digits"))
        assert [each.loss for each in expected] == [each.loss for each in progress]
    assert_same_state(found.model.state_dict(), expected.model.state_dict())


def empty() -> nn.Module:
    with torch.device("meta"):
        return slimnet.build("basicnet", ARGS)


WORKS: dict[str, Callable[[nn.Module, nn.Module, torch.Tensor], object]] = {
    "slim": lambda _, net, x: slimnet.slim(net, x.to("meta")),
    "inspect": lambda _, net, x: slimnet.inspect(net, x),
    "dense": lambda made, net, x: slimnet.certify(net, made[2].model, made[2].plan, x),
    "slimmed": lambda made, net, x: slimnet.certify(made[1], net, made[2].plan, x),
    "verify": lambda made, net, x: slimnet.verify_bundle(made[0] / "slim", dense=net),
    "finetune": lambda _, net, x: Finetuning(net, RECIPE, load_data("digits")),
}


@pytest.mark.parametrize("work", WORKS)
def test_a_network_without_values_is_refused_and_its_first_tensor_named(work, made):
    message = refusal(UsageError, WORKS[work], made, empty(), IMAGES)
    assert message.startswith("the network's features.conv1.weight is on the meta device, which holds no values")


def test_a_network_without_values_is_not_exported(tmp_path):
    message = refusal(UsageError, slimnet.export_onnx, empty(), IMAGES, tmp_path / "net.onnx")
    assert "is on the meta device" in message
    assert not list(tmp_path.iterdir())


def test_a_network_without_values_is_enough_to_load_a_bundle(made):
    folder, _, slimmed = made
    assert_same_state(slimnet.load(folder / "slim", empty()).state_dict(), slimmed.model.state_dict())
