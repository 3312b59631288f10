"""Checkpoints of every usual shape load into the network they belong to."""

import argparse
import pathlib
import re
from functools import partial

import numpy as np
import pytest
import safetensors.torch
import torch
from checkpoints import assert_same_tensors, refusal, save, telling_resnet
from cifar import accuracy, checkpoint_file, load_cifar10_test
from torch import nn

from slimnet.checkpoint import load_checkpoint, read_state_dict
from slimnet.models import architecture_of, build


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return telling_resnet()


@pytest.fixture
def state(trained) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trained.state_dict().items()}


@pytest.fixture
def write(tmp_path):
    """`torch.save` into this test's own folder; returns the path."""
    return partial(save, tmp_path)


def prefixed(prefix: str, state: dict) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.th", "a.bin", "a.ckpt", "a.pth.tar", "no_suffix"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_load_whatever_their_suffix(write, state, name, zipped):
    path = write(state, name, _use_new_zipfile_serialization=zipped)
    assert_same_tensors(load_checkpoint(path, "resnet20"), state)


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin"])
def test_safetensors_load_whatever_their_suffix(tmp_path, state, name):
    safetensors.torch.save_file(state, tmp_path / name)
    assert_same_tensors(load_checkpoint(str(tmp_path / name), "resnet20"), state)


WRAPPERS = {
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"state": {0: torch.ones(2)}}},
    "model": lambda s: {"model": s, "model_ema": 0.9},
    "model_state_dict": lambda s: {"model_state_dict": s, "loss": 0.25},
    "net": lambda s: {"net": s, "acc": 91.7},
    "ema": lambda s: {"ema": s},
    "ema.module": lambda s: {"ema": {"module": s, "decay": 0.99}},
    "model before ema": lambda s: {"ema": {k: v * 0 for k, v in s.items()}, "model": s},
    "model.state_dict": lambda s: {"model": {"state_dict": s}},
    "beside the epoch": lambda s: {**s, "epoch": 3},
    "DataParallel": lambda s: {"state_dict": prefixed("module.", s)},
    "compiled": lambda s: prefixed("_orig_mod.", s),
    "compiled in DataParallel": lambda s: prefixed("module._orig_mod.", s),
    "DataParallel in compiled": lambda s: prefixed("_orig_mod.module.", s),
    "Lightning": lambda s: {"state_dict": prefixed("model.", s), "pytorch-lightning_version": "2.4"},
    "Lightning, compiled": lambda s: {"state_dict": prefixed("model._orig_mod.", s)},
    "stages compiled and parallel": lambda s: {
        re.sub(r"^(layer\d)\.", r"\1._orig_mod.module.", k): v for k, v in s.items()
    },
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapped_and_prefixed_state_dicts_are_found(write, state, wrapper):
    path = write(WRAPPERS[wrapper](state))
    assert read_state_dict(path).keys() == state.keys()
    assert_same_tensors(load_checkpoint(path, "resnet20"), state)


def test_real_wrappers_load(write, trained, state):
    """What DataParallel, torch.compile and torch's averaged model really call things."""
    average = torch.optim.swa_utils.AveragedModel(trained)
    for wrapped in (nn.DataParallel(trained), torch.compile(trained, backend="eager"), average):
        path = write({"state_dict": wrapped.state_dict()})
        assert_same_tensors(load_checkpoint(path, "resnet20"), state)


def test_harmless_company_of_the_weights_is_read(write, state):
    company = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs")),
        "best": np.float64(91.7),
        "step": np.int64(3),
        "done": np.bool_(True),
        "confusion": np.arange(6.0).reshape(2, 3),
    }
    path = write({"state_dict": state, **company})
    assert_same_tensors(load_checkpoint(path, "resnet20"), state)


def test_reading_leaves_what_the_user_marked_as_safe(write, state):
    with torch.serialization.safe_globals([argparse.Namespace]):
        before = set(torch.serialization.get_safe_globals())
        read_state_dict(write(state))
        assert set(torch.serialization.get_safe_globals()) == before


def test_a_network_whose_own_names_begin_like_a_prefix_loads(write, tmp_path, monkeypatch):
    """Its checkpoint fits it with its prefix, without it, and with another one on top."""
    (tmp_path / "slimnet_test_prefix.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.model = nn.Linear(2, 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    weights = {"weight": torch.rand(3, 2), "bias": torch.rand(3)}
    for prefix in ("model.", "", "module.model.", "model.model."):
        path = write(prefixed(prefix, weights))
        assert_same_tensors(load_checkpoint(path, "slimnet_test_prefix:Net"), prefixed("model.", weights))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_precisions_are_converted_to_the_networks(write, state, dtype):
    stored = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
    model = load_checkpoint(write(stored), "resnet20")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert_same_tensors(model, stored)


def test_checkpoints_from_before_num_batches_tracked_load(write, state):
    old = {name: tensor for name, tensor in state.items() if "num_batches_tracked" not in name}
    model = load_checkpoint(write(old), "resnet20")
    assert torch.equal(model.bn1.running_mean, state["bn1.running_mean"])
    assert model.bn1.num_batches_tracked == 0


def test_densenets_published_with_dots_in_their_names_load(write):
    """torchvision's own files say `denselayer1.norm.1.weight`, its code `denselayer1.norm1.weight`."""
    new = build("torchvision:densenet121", {"num_classes": 3}).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): t for name, t in new.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    model = load_checkpoint(write(old), "torchvision:densenet121", {"num_classes": 3})
    assert_same_tensors(model, new)


def test_a_network_that_is_loaded_in_inference_mode_can_be_trained(write, state):
    path = write(state, "a.pt")
    with torch.inference_mode():
        model = load_checkpoint(path, "resnet20")
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert not any(parameter.is_inference() for parameter in model.parameters())


def test_the_network_remembers_its_architecture_and_its_mode(write, state):
    model = load_checkpoint(write(state), "resnet20", {"num_classes": 10})
    assert model.training
    assert architecture_of(model).args == {"num_classes": 10}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.ones(3), "holds a single tensor, not a state dict"),
        ([torch.ones(3)], "holds an object of type list, not a state dict"),
        (3, "holds an object of type int, not a state dict"),
        ({}, "holds no state dict: its entries are none"),
        (
            {"epoch": 3, "lr": 0.1},
            "holds no state dict: its entries are epoch, lr, but weights are looked for in",
        ),
        ({1: torch.ones(2)}, "holds no state dict: its entries are 1"),
        ({f"e{i}": i for i in range(9)}, "its entries are e0, e1, e2, e3 and 5 more"),
    ],
)
def test_files_without_a_state_dict_say_what_they_hold(write, content, words):
    assert words in refusal(write(content))


def test_lazy_layers_are_refused(write):
    message = refusal(write({"weight": torch.rand(2, 2)}), "torch.nn:LazyLinear", {"out_features": 2})
    assert "has lazy layers" in message


def test_nan_and_infinity_are_counted_and_named(write, state):
    state["conv1.weight"].view(-1)[:3] = float("nan")
    state["linear.bias"][4] = float("-inf")
    assert refusal(write(state)) == (
        "holds NaN or Inf in 2 of 116 tensors (conv1.weight: 3 of 432 values, linear.bias: 1 of 10 values); "
        "take a checkpoint from before the training diverged"
    )


def test_values_whose_sum_overflows_are_not_mistaken_for_infinity(write, state):
    state["linear.weight"].fill_(3e38)
    assert_same_tensors(load_checkpoint(write(state), "resnet20"), state)


@pytest.mark.parametrize(
    ("convert", "words"),
    [
        (lambda t: t.to(torch.int8), "conv1.weight as int8 where the network has float32; is it quantised?"),
        (lambda t: t.to(torch.complex64), "conv1.weight as complex64 where the network has float32"),
        (lambda t: t.to("meta"), "conv1.weight as a meta (empty) tensor"),
        (lambda t: t.to_sparse(), "conv1.weight as a sparse_coo tensor"),
    ],
)
def test_tensors_without_ordinary_values_are_refused(write, state, convert, words):
    state["conv1.weight"] = convert(state["conv1.weight"])
    assert words in refusal(write(state))


@pytest.mark.parametrize(("arch", "below", "total"), [("resnet20", 17, 688), ("resnet56", 56, 2032)])
def test_published_checkpoints_load_with_their_dead_gammas(arch, below, total):
    model = load_checkpoint(checkpoint_file(arch), arch)
    gammas = torch.cat([m.weight.detach().abs() for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    assert (int((gammas < 1e-3).sum()), gammas.numel()) == (below, total)


@pytest.mark.sweep
def test_published_resnet20_scores_what_it_should_on_cifar10():
    model = load_checkpoint(checkpoint_file("resnet20"), "resnet20")
    assert accuracy(model, *load_cifar10_test()) == pytest.approx(91.73, abs=0.02)


def test_published_resnet56_scores_about_what_it_should_on_500_images():
    """93.39 % in the long run; four standard deviations of 500 draws are 4.4."""
    model = load_checkpoint(checkpoint_file("resnet56"), "resnet56")
    images, labels = load_cifar10_test()
    assert accuracy(model, images[:500], labels[:500]) == pytest.approx(93.39, abs=4.4)


@pytest.mark.sweep
def test_published_resnet56_scores_what_it_should_on_cifar10():
    model = load_checkpoint(checkpoint_file("resnet56"), "resnet56")
    assert accuracy(model, *load_cifar10_test()) == pytest.approx(93.39, abs=0.02)
