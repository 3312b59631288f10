"""Where networks are and how a device rounds: settings that last as long as they should; see `test_elsewhere` too."""

import copy
from unittest import mock

import pytest
import torch
from slimnet_cli.options.machine import Machine
from torch import nn

import slimnet
from slimnet.errors import UsageError
from slimnet.torch_state.devices import fastest_kernels, usable
from slimnet.torch_state.precision import float32_products
from slimnet.torch_state.random_state import random_numbers_kept, set_random_numbers
from slimnet.training.loop.distributed import joined
from slimnet.training.recipe.machine_settings import Tuning, gpu_settings

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def settings():
    backends = torch.backends
    parts = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul)
    return [each.fp32_precision for each in parts] + [torch.get_float32_matmul_precision()]


@pytest.mark.parametrize(("tf32", "precision", "name"), [(True, "tf32", "high"), (False, "ieee", "highest")])
def test_products_of_float32_are_rounded_as_asked_for_and_as_before_afterwards(tf32, precision, name):
    before = settings()
    with float32_products(tf32=tf32):
        assert settings() == [precision] * 4 + [name]
    assert settings() == before


@pytest.mark.parametrize("tf32", [True, False])
def test_older_names_of_the_setting_read_the_same(tf32):
    """torch raises where the older names, by which cuDNN's settings and its compiler ask, were not set as well."""
    before = torch.backends.cudnn.allow_tf32
    with float32_products(tf32=tf32):
        assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == tf32
        with torch.backends.cudnn.flags(enabled=True):
            pass
    assert torch.backends.cudnn.allow_tf32 == before


class SettingCudnn(nn.BatchNorm2d):
    """Sets cuDNN's flags in its forward, as people do to make a network repeat itself."""

    def forward(self, images):
        with torch.backends.cudnn.flags(enabled=False, deterministic=True):
            return super().forward(images)


def test_a_network_that_sets_cudnns_flags_is_certified():
    assert slimnet.slim(SettingCudnn(3).eval(), IMAGES).certificate.holds


def test_settings_come_back_after_an_error_too():
    before = settings()
    with pytest.raises(ZeroDivisionError), float32_products(tf32=True):
        raise ZeroDivisionError
    assert settings() == before


def test_cudnn_is_set_to_try_kernels_and_nothing_else():
    """`cudnn.flags` would switch off whatever it is not given, cuDNN itself among them."""
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark
    with fastest_kernels():
        assert (cudnn.enabled, cudnn.benchmark) == (before[0], True)
    assert (cudnn.enabled, cudnn.benchmark) == before


class Reporting(nn.BatchNorm2d):
    """Writes down how a GPU would round the convolutions of its forward."""

    def forward(self, images):
        SEEN.append(torch.backends.cudnn.conv.fp32_precision)
        return super().forward(images)


SEEN = []


def test_the_certificate_is_measured_without_tf32():
    """A GPU rounds float32 convolutions to TF32 by default, which alone is over the tolerance."""
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    model = Reporting(3).eval()
    slimmed = slimnet.slim(model, IMAGES)
    SEEN.clear()
    slimnet.certify(model, slimmed.model, slimmed.plan, IMAGES)
    assert SEEN == ["ieee"] * 3


def test_random_numbers_of_a_forward_are_given_back():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with random_numbers_kept(nn.Linear(1, 1, device="meta")):
        torch.rand(5)
    assert torch.equal(torch.rand(1), expected)


def test_random_numbers_of_another_kind_of_device_are_left_out():
    """A run that was begun on a GPU goes on on the CPU, and the other way round."""
    states = [torch.get_rng_state(), torch.zeros(16, dtype=torch.uint8)]
    torch.rand(1)
    set_random_numbers(states, [torch.device("cpu")])
    assert torch.equal(torch.get_rng_state(), states[0])
    set_random_numbers(states[:1], [torch.device("cuda")])


@pytest.mark.parametrize("name", ["abacus", "meta", "mps:7", "xla"])
def test_a_device_that_is_not_there_or_does_not_compute_is_refused(name):
    with pytest.raises(
        UsageError, match=rf"^there is no device '{name}' here, where torch \S+ finds \w+ GPUs; use cpu$"
    ):
        usable(name)


def test_the_cpu_has_one_name():
    assert usable("cpu:0") == torch.device("cpu") == usable(torch.device("cpu"))


def test_a_gpu_that_is_named_is_the_current_one_while_steps_are_taken():
    """Streams and graphs are made on the current device: on another a graph would capture nothing."""
    with mock.patch("torch.cuda.device") as current, gpu_settings(Tuning(), torch.device("cuda", 1)):
        current.assert_called_once_with(torch.device("cuda", 1))
        current.return_value.__enter__.assert_called_once_with()
    current.return_value.__exit__.assert_called_once()


class Casting(nn.Sequential):
    """Asks for autocast where its input is."""

    def forward(self, images):
        with torch.autocast(images.device.type, enabled=False):
            return super().forward(images)


class Scaling(nn.Sequential):
    """Has a tensor for every channel that is neither a parameter nor a buffer."""

    def __init__(self, *layers):
        super().__init__(*layers)
        self.scale = torch.rand(6, 1, 1)

    def forward(self, images):
        return self[3](self[2](self[1](self[0](images))) * self.scale)


@pytest.mark.parametrize("kind", [Casting, Scaling])
def test_forwards_that_ask_where_they_are_or_hold_plain_tensors_are_slimmed(kind):
    model = kind(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 3)).eval()
    model[1].weight.data[::3] = 0
    untouched = copy.deepcopy(model)
    slimmed = slimnet.slim(model, IMAGES)
    assert slimmed.plan.removed_channels == 2
    assert slimnet.certify(untouched, slimmed.model, slimmed.plan, IMAGES).holds
    again = slimnet.apply_plan(model, slimnet.SurgeryPlan.from_json(slimmed.plan.to_json()))
    assert torch.equal(again(IMAGES), slimmed.model(IMAGES))


def test_autocast_on_meta_is_refused_again_after_a_trace():
    slimnet.slim(Casting(nn.BatchNorm2d(3)).eval(), IMAGES)
    with pytest.raises(RuntimeError, match="unsupported"):
        torch.autocast("meta")


def test_a_process_without_a_gpu_of_its_own_is_refused_with_the_reason(monkeypatch):
    """More processes under torchrun than there are GPUs."""
    monkeypatch.setenv("WORLD_SIZE", "78")
    monkeypatch.setenv("LOCAL_RANK", "77")
    with pytest.raises(UsageError, match=r"^there is no device 'cuda:77' here"), joined("cuda"):
        pass


def test_of_several_processes_each_looks_at_its_own_gpu(monkeypatch):
    """Else all of them would take memory of the first."""
    looked_at = []
    monkeypatch.setattr("slimnet.torch_state.devices.usable", lambda device: looked_at.append(device) or device)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [Machine(device=each).chosen_device() for each in ("cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:0", "cpu"]
    assert looked_at == ["cuda:1", "cuda:0"]
