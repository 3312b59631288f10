"""Verification: all forms of a sound bundle agree, and a byte that changed or a file that is missing is noticed."""

import dataclasses
import json
import sys

import pytest
import slimnet_cli
import torch
from bundles import (
    FILES,
    MANIFEST,
    SHAPE,
    SmallNet,
    Tied,
    assert_same_snapshot,
    basic_net,
    refusal,
    snapshot,
    tied_net,
)

from slimnet.bundle.bundle import load, save, verify_bundle
from slimnet.errors import (
    BundleError,
    CertificateError,
    ChangedBundleError,
    PlanError,
)
from slimnet.models import build
from slimnet.surgery.equivalence import TOLERANCE

pytestmark = pytest.mark.usefixtures("operators_read_once")


def test_a_sound_bundle_is_found_to_be_sound(basic):
    found = verify_bundle(basic.folder)
    assert found.folder == str(basic.folder)
    assert found.reference == "model.safetensors"
    assert set(found.differences) == {"model.pt2", "model.onnx"}
    assert all(0 <= difference <= TOLERANCE for difference in found.differences.values())
    assert found.batches == (1, 5)
    assert found.certificate == basic.slimmed.certificate
    assert found.measured is None


def test_a_bundle_is_saved_and_verified_alike_under_autocast(basic, tmp_path):
    """Every form in float32: in bfloat16 outputs would differ by 1e-3."""
    with torch.autocast("cpu", torch.bfloat16):
        save(basic.slimmed, tmp_path / "slim")
        found = verify_bundle(tmp_path / "slim", dense=basic.dense)
    assert max(found.differences.values()) < 1e-5
    assert found.measured.max_rel_difference < 1e-5
    again = verify_bundle(tmp_path / "slim")
    assert again.differences == found.differences


def test_a_bundle_that_is_loaded_in_inference_mode_can_be_trained(basic):
    with torch.inference_mode():
        model = load(basic.folder)
    model(torch.randn(2, *SHAPE)).sum().backward()
    assert not any(parameter.is_inference() for parameter in model.parameters())


def test_what_was_found_is_printed_in_lines_for_people(basic):
    lines = str(verify_bundle(basic.folder)).splitlines()
    assert lines[0] == f"{basic.folder}: every file is as it was written"
    assert lines[1].startswith("model.pt2 agrees with model.safetensors within ")
    assert lines[2].startswith("model.onnx agrees with model.safetensors within ")
    assert lines[3].startswith("stored certificate: holds: ")
    assert len(lines) == 4


def test_what_was_found_is_complete_in_json(basic):
    """Oracle: the fields of the certificate that lies in the bundle."""
    written = json.loads((basic.folder / "certificate.json").read_text())
    found = json.loads(json.dumps(dataclasses.asdict(verify_bundle(basic.folder, dense=basic.dense))))
    described = {"folder", "reference", "differences", "batches", "only_shapes"}
    assert set(found) == described | {"certificate", "measured", "other_dense", "projections", "images", "sizes"}
    assert found["certificate"] | {"holds": True} == written
    assert set(found["measured"]) == set(found["certificate"])


def test_the_certificate_is_measured_again_where_the_dense_network_is_given(basic):
    before = snapshot(basic.dense)
    loader = [(torch.randn(4, *SHAPE), torch.zeros(4, dtype=torch.int64)) for _ in range(3)]
    found = verify_bundle(basic.folder, dense=basic.dense, loader=loader)
    assert found.measured is not None
    assert found.measured.samples == 12
    assert found.measured.holds
    assert "measured again: certificate holds" in str(found)
    assert verify_bundle(basic.folder, dense=basic.dense).measured.samples == 3
    assert_same_snapshot(before, snapshot(basic.dense))


def test_a_dense_network_with_other_weights_does_not_match(basic):
    message = refusal(CertificateError, verify_bundle, basic.folder, dense=basic_net(seed=1))
    assert message.startswith(f"{basic.folder} does not compute what the dense network does: certificate does NOT hold")


def test_another_network_is_refused(basic, nameless):
    for made in (basic, nameless):
        for call in (lambda f, m: load(f, m), lambda f, m: verify_bundle(f, m), lambda f, m: verify_bundle(f, dense=m)):
            assert "another network" in refusal(PlanError, call, made.folder, build("basicnet"))


def test_a_network_that_nothing_says_how_to_build_needs_a_model(nameless):
    message = refusal(BundleError, load, nameless.folder)
    assert "model=" in message
    assert "--arch" not in message, "that is what the command line says"
    assert "model.onnx" in message
    assert isinstance(load(nameless.folder, Tied()), Tied)


def test_a_network_that_nothing_says_how_to_build_is_verified_in_its_other_forms(nameless):
    found = verify_bundle(nameless.folder)
    assert (found.reference, set(found.differences)) == ("model.pt2", {"model.onnx"})
    for given in ({"model": Tied()}, {"dense": tied_net()}):
        assert verify_bundle(nameless.folder, **given).reference == "model.safetensors"


def test_code_that_a_bundle_names_is_not_run_unasked(coded, monkeypatch):
    """Oracle: importing or calling it would raise."""
    monkeypatch.setitem(sys.modules, "bundles", None)
    message = refusal(BundleError, load, coded.folder)
    assert "bundles:small_factory" in message
    assert "not run unasked" in message
    assert verify_bundle(coded.folder).reference == "model.pt2"
    assert isinstance(load(coded.folder, SmallNet(5)), SmallNet)


def test_loading_does_not_change_the_model_that_is_given(coded):
    model = SmallNet(5)
    before = snapshot(model)
    load(coded.folder, model)
    assert_same_snapshot(before, snapshot(model))


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
@pytest.mark.parametrize("place", ["first", "middle", "last", "one more", "one less", "none left"])
def test_a_changed_byte_is_noticed_in_every_file(name, place, nameless, copy, capsys):
    folder = copy(nameless)
    content = bytearray((folder / name).read_bytes())
    if place in ("first", "middle", "last"):
        content[{"first": 0, "middle": len(content) // 2, "last": -1}[place]] ^= 1
    else:
        content = {"one more": content + b"\n", "one less": content[:-1], "none left": bytearray()}[place]
    (folder / name).write_bytes(content)
    for call in (lambda: load(folder, Tied()), lambda: verify_bundle(folder)):
        assert str(folder / name) in refusal(ChangedBundleError, call)
    assert slimnet_cli.run(["verify", str(folder)]) == 1
    written = capsys.readouterr()
    assert (written.out, written.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_noticed(name, nameless, copy, capsys):
    folder = copy(nameless)
    (folder / name).unlink()
    for call in (lambda: load(folder, Tied()), lambda: verify_bundle(folder)):
        assert refusal(ChangedBundleError, call) == f"{folder} has no {name}; make the bundle again with slimnet slim"
    assert slimnet_cli.run(["verify", str(folder)]) == 1
    capsys.readouterr()


def test_what_is_no_bundle_is_called_none(nameless, copy, tmp_path):
    folder = copy(nameless)
    (folder / MANIFEST).unlink()
    (tmp_path / "file").write_text("mine")
    for place in (folder, tmp_path / "missing", tmp_path / "file"):
        for call in (load, verify_bundle):
            assert str(place) in refusal(BundleError, call, place)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_folder_where_a_file_should_be_is_one_line(name, nameless, copy):
    folder = copy(nameless)
    (folder / name).unlink()
    (folder / name).mkdir()
    for call in (load, verify_bundle):
        assert str(folder / name) in refusal(BundleError, call, folder)
