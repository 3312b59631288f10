"""Forwards that draw random numbers: all networks and forms draw the same, or it is said that they cannot."""

import dataclasses
import json

import onnx
import pytest
import slimnet_cli
import torch
from blocks import DRAWS, Encoder
from bundles import images, lived_in, refusal, sign
from torch import nn

import slimnet
from slimnet.errors import CertificateError, ExportError
from slimnet.torch_state.random_state import RandomState, random_numbers_kept


class Noisy(nn.Sequential):
    """Draws a number for every channel, dead ones too, and then one for its output."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = self[1](self[0](image)).relu()
        torch.rand(found.shape[1])
        return self[2](found) + torch.rand(1)


def encoder(draw: str = "torch") -> nn.Module:
    torch.manual_seed(0)
    return lived_in(Encoder(draw)).eval()


@pytest.mark.parametrize("draw", DRAWS)
def test_dense_masked_and_slim_network_draw_the_same_numbers(draw):
    """Oracle: the outputs themselves, under one seed."""
    dense = encoder(draw)
    slimmed = slimnet.slim(dense, images(), loader=[images(), images(seed=1)], float64=True)
    assert slimmed.plan.removed_channels == 5
    assert slimmed.certificate.holds
    assert slimmed.certificate.random
    assert "with the same random numbers in all networks" in str(slimmed.certificate)
    found = []
    with torch.no_grad(), random_numbers_kept() as start:
        for network in (dense, slimmed.model):
            start.restore()
            found.append(network(images()))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("draw", DRAWS)
def test_slimming_leaves_every_generator_where_it_stood(draw):
    dense, before = encoder(draw), RandomState.now()
    slimnet.slim(dense, images(), loader=torch.utils.data.DataLoader(images(), 2, shuffle=True))
    assert not before.moved()


def test_a_network_that_draws_nothing_is_not_said_to():
    torch.manual_seed(0)
    model = lived_in(nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Dropout(), nn.Conv2d(8, 3, 1))).eval()
    assert not slimnet.slim(model, images()).certificate.random


def test_a_slim_network_that_computes_something_else_is_not_excused_by_noise():
    dense = encoder()
    slimmed = slimnet.slim(dense, images())
    slimmed.model.mean.weight.data *= 1.01
    assert not slimnet.certify(dense, slimmed.model, slimmed.plan, images()).holds


def test_noise_on_channels_that_are_removed_is_refused_with_the_reason():
    torch.manual_seed(0)
    model = lived_in(Noisy(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1))).eval()
    model[1].bias.data[:3] = -1.0
    message = "^the forward draws random numbers for channels that are removed"
    with pytest.raises(CertificateError, match=message):
        slimnet.slim(model, images())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, operators_read_once):
    folder = tmp_path_factory.mktemp("random") / "slim"
    torch.save(encoder().state_dict(), folder.parent / "net.pt")
    slimnet.save(slimnet.slim(encoder(), images()), folder)
    return folder


def test_module_and_program_are_compared_and_of_onnx_only_the_shapes(bundle):
    found = slimnet.verify_bundle(bundle, Encoder())
    assert found.differences == {"model.pt2": pytest.approx(0, abs=1e-6)}
    assert found.only_shapes == ("model.onnx",)
    line = "model.onnx draws random numbers of its own: only the shapes of its outputs were compared, at batch 1 and 5"
    assert line in str(found).splitlines()
    assert slimnet.verify_bundle(bundle).only_shapes == ("model.onnx",)
    assert slimnet.verify_bundle(bundle, dense=encoder()).measured.holds
    metadata = {each.key: each.value for each in onnx.load(bundle / "model.onnx").metadata_props}
    assert metadata["random_numbers"].startswith("drawn anew in every run")


def test_a_form_of_a_random_network_that_computes_something_else_is_found(bundle, tmp_path):
    """Oracle: a program of other weights."""
    other = encoder()
    other.head.weight.data *= 1.01
    slimmed = slimnet.slim(other, images())
    folder = slimnet.save(slimmed, tmp_path / "other")
    (folder / "model.pt2").write_bytes((bundle / "model.pt2").read_bytes())
    sign(folder)
    message = refusal(ExportError, slimnet.verify_bundle, folder, Encoder())
    assert "model.pt2 differs from model.safetensors" in message


def test_verifying_and_exporting_draw_no_random_numbers(bundle, tmp_path):
    dense, before = encoder(), RandomState.now()
    slimnet.verify_bundle(bundle, dense)
    found = slimnet.export_onnx(dense, images(), tmp_path / "net.onnx")
    assert not before.moved()
    assert found.max_rel_difference is None
    assert "draws random numbers of its own, so only the shapes" in str(found)


@pytest.mark.parametrize("draw", ["python", "numpy"])
def test_numbers_that_an_export_would_keep_for_ever_are_refused(draw, tmp_path):
    """Oracle: under equal seeds, export and network agree, and under others never again."""
    message = refusal(ExportError, slimnet.save, slimnet.slim(encoder(draw), images()), tmp_path / "slim")
    assert "Python's random or NumPy" in message
    assert not (tmp_path / "slim").exists()


def test_the_command_line_says_it_too(bundle, capsys):
    assert slimnet_cli.run(["verify", str(bundle)]) == 0
    assert "model.onnx draws random numbers of its own" in capsys.readouterr().out
    assert slimnet_cli.run(["verify", str(bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["only_shapes"], found["certificate"]["random"]) == (["model.onnx"], True)
    assert dataclasses.asdict(slimnet.verify_bundle(bundle)).keys() < found.keys()
