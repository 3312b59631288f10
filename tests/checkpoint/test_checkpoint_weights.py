"""Checkpoints that hold more than one network: the one that fits whole is found, and what else there is is named."""

from collections import OrderedDict
from functools import partial
from typing import Any

import pytest
import slimnet_cli
import torch
from checkpoints import assert_same_tensors, save
from torch import nn

from slimnet.checkpoint import load_checkpoint, read_checkpoint, read_state_dict
from slimnet.errors import CheckpointError
from slimnet.models import build

ARCH = ("basicnet", {"width": 0.0625, "hidden": 8, "in_channels": 1, "num_classes": 3})
State = dict[str, torch.Tensor]


def state_of(seed: int) -> State:
    torch.manual_seed(seed)
    return dict(build(*ARCH).state_dict())


PLAIN, AVERAGE = state_of(0), state_of(1)


def under(start: str, state: State) -> State:
    return {start + name: tensor for name, tensor in state.items()}


@pytest.fixture
def write(tmp_path):
    """`torch.save` into this test's own folder; returns the path."""
    return partial(save, tmp_path)


LOSS = {"criterion.weight": torch.ones(3), "metric.total": torch.zeros(2)}
LIGHTNING: dict[str, Any] = {
    "net beside a loss": {"state_dict": {**under("net.", PLAIN), **LOSS}, "hyper_parameters": {}},
    "model beside a loss": {"state_dict": {**under("model.", PLAIN), **LOSS}},
    "a loss first": {"state_dict": {**LOSS, **under("net.", PLAIN)}},
    "deeper": {"state_dict": {**under("module.task.backbone.", PLAIN), **LOSS}},
    "compiled": {"state_dict": {**under("net._orig_mod.", PLAIN), **LOSS}},
    "no wrapper": {**under("net.", PLAIN), **LOSS},
}


@pytest.mark.parametrize("kind", LIGHTNING)
def test_a_whole_network_beside_other_tensors_is_found_and_they_are_named(write, kind):
    loaded = read_checkpoint(write(LIGHTNING[kind]), *ARCH)
    assert_same_tensors(loaded.model, PLAIN)
    assert set(loaded.left_out) == set(LOSS)
    assert loaded.place.endswith(("net", "model", "backbone"))
    assert "left out criterion.weight, metric.total" in loaded.note


def test_a_network_under_a_prefix_alone_leaves_nothing_out(write):
    loaded = read_checkpoint(write({"state_dict": under("net.", PLAIN)}), *ARCH)
    assert_same_tensors(loaded.model, PLAIN)
    assert (loaded.place, loaded.left_out, loaded.note) == ("state_dict.net", (), "")


AVERAGES: dict[str, Any] = {
    "timm": {"state_dict": PLAIN, "state_dict_ema": AVERAGE, "epoch": 3},
    "torchvision": {"model": PLAIN, "model_ema": {"n_averaged": torch.tensor(9), **under("module.", AVERAGE)}},
    "an entry": {"model": PLAIN, "ema": AVERAGE},
    "an entry with a module": {"model": PLAIN, "ema": {"module": AVERAGE, "decay": 0.999}},
    "an entry of its own name": {"state_dict": PLAIN, "ema_state_dict": AVERAGE},
    "beside the weights": {**PLAIN, "model_ema": AVERAGE},
    "Lightning": {"state_dict": {**under("net.", PLAIN), **under("net_ema.", AVERAGE), **LOSS}},
    "Lightning, averaged model": {"state_dict": {**under("model.", PLAIN), **under("ema.module.", AVERAGE)}},
    "within": {"state_dict": {**PLAIN, **under("ema.", AVERAGE)}},
    "averages first": OrderedDict(state_dict_ema=AVERAGE, state_dict=PLAIN),
    "safetensors-like": {**under("ema_model.", AVERAGE), **under("model.", PLAIN)},
}


@pytest.mark.parametrize("kind", AVERAGES)
def test_plain_weights_are_taken_unless_averages_are_asked_for(write, kind):
    path = write(AVERAGES[kind])
    assert_same_tensors(load_checkpoint(path, *ARCH), PLAIN)
    assert_same_tensors(load_checkpoint(path, *ARCH, weights="plain"), PLAIN)
    assert_same_tensors(load_checkpoint(path, *ARCH, weights="ema"), AVERAGE)
    assert "took the plain weights, not the averaged ones in " in read_checkpoint(path, *ARCH).note
    assert "averaged" not in read_checkpoint(path, *ARCH, weights="ema").note


def test_averages_alone_are_taken_and_called_that(write):
    for content in ({"ema": AVERAGE, "step": torch.tensor(3)}, {"state_dict_ema": AVERAGE}, under("ema.", AVERAGE)):
        loaded = read_checkpoint(write(content), *ARCH)
        assert_same_tensors(loaded.model, AVERAGE)
        assert "took the averaged weights" in loaded.note
        with pytest.raises(CheckpointError, match=r"has no weights 'plain' of this network, only those in \S*ema"):
            load_checkpoint(write(content), *ARCH, weights="plain")


def test_names_that_only_sound_like_an_average_are_none(write):
    loaded = read_checkpoint(write({**under("schema.", PLAIN), **LOSS}), *ARCH)
    assert_same_tensors(loaded.model, PLAIN)
    assert "averaged" not in loaded.note


def test_of_two_networks_that_nothing_tells_apart_one_has_to_be_named(write):
    path = write({"state_dict": {**under("student.", PLAIN), **under("teacher.", AVERAGE)}})
    with pytest.raises(CheckpointError, match=r"several networks that fit, in \S+student, \S+teacher; say which with "):
        load_checkpoint(path, *ARCH)
    assert_same_tensors(load_checkpoint(path, *ARCH, weights="student"), PLAIN)
    assert_same_tensors(load_checkpoint(path, *ARCH, weights="teacher"), AVERAGE)
    assert_same_tensors(load_checkpoint(path, *ARCH, weights="state_dict.teacher"), AVERAGE)


def test_weights_that_are_not_there_are_named_with_those_that_are(write):
    with pytest.raises(CheckpointError, match=r"has no weights 'ema' of this network, only those in state_dict$"):
        load_checkpoint(write({"state_dict": PLAIN}), *ARCH, weights="ema")


def test_an_average_of_another_network_is_not_taken_for_one(write):
    other = under("", dict(build("basicnet").state_dict()))
    path = write({"state_dict": PLAIN, "state_dict_ema": other})
    assert read_checkpoint(path, *ARCH).note == ""
    with pytest.raises(CheckpointError, match="has no weights 'ema'"):
        load_checkpoint(path, *ARCH, weights="ema")


def test_a_part_of_a_network_is_no_whole_one(write):
    """All but one tensor under the prefix; or one too many."""
    lacking = dict(list(under("net.", PLAIN).items())[:-1])
    for content in ({**lacking, **LOSS}, {**under("net.", PLAIN), "net.extra.weight": torch.ones(2)}):
        with pytest.raises(CheckpointError, match=r"looks like another architecture|does not fit"):
            load_checkpoint(write(content), *ARCH)


def test_a_checkpoint_that_holds_itself_is_read(write):
    content: dict[str, Any] = {"epoch": 3}
    content["state_dict"] = {"model": content}
    content["model"] = {"net": PLAIN, "model": content}
    assert_same_tensors(load_checkpoint(write(content), *ARCH), PLAIN)


def test_without_a_network_the_likeliest_plain_weights_are_read(write):
    for kind in ("timm", "torchvision", "an entry with a module", "averages first"):
        found = read_state_dict(write(AVERAGES[kind]))
        assert all(torch.equal(found[name], tensor) for name, tensor in PLAIN.items())


def test_the_command_line_says_which_weights_it_took(write, capsys):
    path = str(write({"state_dict": PLAIN, "state_dict_ema": AVERAGE}))
    command = ["slim", path, "--arch", "basicnet", "--input-shape", "1,8,8", "--dry-run"]
    command += ["--arch-args", '{"width": 0.0625, "hidden": 8, "in_channels": 1, "num_classes": 3}']
    assert slimnet_cli.run(command) == 0
    assert "took the plain weights, not the averaged ones in state_dict_ema (--weights ema)" in capsys.readouterr().err
    assert slimnet_cli.run([*command, "--weights", "ema"]) == 0
    assert "weights" not in capsys.readouterr().err
    assert slimnet_cli.run([*command, "--weights", "teacher"]) == 2
    assert "has no weights 'teacher'" in capsys.readouterr().err


def test_lightnings_averaging_callback_keeps_the_weights_of_training_under_a_name_of_their_own(write):
    """It puts the average where the weights are looked for, as its own `load_from_checkpoint` does."""
    path = write({"state_dict": under("net.", AVERAGE), "current_model_state": under("net.", PLAIN)})
    assert_same_tensors(load_checkpoint(path, *ARCH), AVERAGE)
    assert_same_tensors(load_checkpoint(path, *ARCH, weights="current_model_state"), PLAIN)


def test_timms_own_checkpoint_with_an_average_is_read(tmp_path):
    """Oracle: timm's own reader."""
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet10t", num_classes=3)
    average = timm.utils.ModelEmaV3(model, decay=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    average.update(model)
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    saver = timm.utils.CheckpointSaver(model, optimiser, model_ema=average, checkpoint_dir=str(tmp_path))
    saver.save_checkpoint(0, metric=1.0)
    (path,) = tmp_path.glob("checkpoint-*.tar")
    for weights, use_ema in ((None, False), ("ema", True)):
        expected = timm.models.load_state_dict(str(path), use_ema=use_ema)
        found: nn.Module = load_checkpoint(path, "timm:resnet10t", {"num_classes": 3}, weights=weights)
        assert_same_tensors(found, expected)
