"""slimnet export --int8, of a checkpoint too, and files that are there already."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import slimnet_cli
import torch
from bundles import SHAPE, basic_net

from slimnet.bundle.bundle import save
from slimnet.data.image_spec import ImageSpec
from slimnet.export.int8 import nncf_package
from slimnet.export.telemetry import without_telemetry
from slimnet.models import build
from slimnet.pipeline import slim

pytestmark = pytest.mark.usefixtures("operators_read_once")

ARGS = {"in_channels": 1, "width": 0.0625, "hidden": 8, "num_classes": 3}
ARCH = ("--arch", "basicnet", "--arch-args", json.dumps(ARGS))


@pytest.fixture(scope="module")
def place(tmp_path_factory, operators_read_once) -> Path:
    """A folder with a checkpoint, the bundle of it, which knows its images, and data."""
    folder = tmp_path_factory.mktemp("int8")
    dense = basic_net()
    torch.save(dense.state_dict(), folder / "net.pt")
    save(slim(dense, torch.randn(2, *SHAPE)), folder / "slim", images=ImageSpec((0.25,), (0.5,), SHAPE[1:]))
    pixels = np.random.default_rng(0).integers(0, 256, (60, *SHAPE[1:], 1), np.uint8)
    labels = np.arange(60) % 3
    np.savez(folder / "data.npz", x_train=pixels[:40], y_train=labels[:40], x_test=pixels[40:], y_test=labels[40:])
    return folder


def run(*arguments: object) -> int:
    return slimnet_cli.run(["export", *map(str, arguments)])


def refused(capsys, *arguments: object) -> str:
    """The one line with which a request is refused."""
    capsys.readouterr()
    assert run(*arguments) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1
    return written.err


def test_a_bundle_in_int8_with_all_four_networks(place, tmp_path, capsys):
    out = tmp_path / "net.int8.onnx"
    given = (place / "slim", "-o", out, "--int8", "--data", place / "data.npz")
    assert run(*given, "--dense", place / "net.pt", "--calibration-images", 30, "--with-preprocessing") == 0
    said = capsys.readouterr()
    for words in ("dense int8", "slim int8", "class as dense", "20 test images", "next: onnxruntime.InferenceSession("):
        assert words in said.out
    assert "its weights differ" not in said.err
    document = json.loads((tmp_path / "net.int8.onnx.json").read_text())
    assert [each["name"] for each in document["networks"]] == ["dense", "slim", "dense int8", "slim int8"]
    assert document["calibration"]["n"] == 30
    about = {each.key: each.value for each in onnx.load(out).metadata_props}
    assert "plan_digest" in about
    session = onnxruntime.InferenceSession(out)
    assert session.run(None, {"images": np.zeros((2, *SHAPE[1:], 1), np.uint8)})[0].shape == (2, 3)

    assert slimnet_cli.run(["verify", str(out), "--data", str(place / "data.npz")]) == 0
    assert "is the file of its certificate; its accuracy on 20 test images" in capsys.readouterr().out
    assert slimnet_cli.run(["verify", str(out)]) == 2
    assert "name them with --data" in capsys.readouterr().err

    assert f"{out} exists; name another file, or replace it with --force" in refused(capsys, *given)
    before = out.read_bytes()
    assert run(*given, "--force", "--certificate-images", 7, "--json", "--dense", _other(tmp_path)) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["certificate"]["n"] == 7
    assert "is not the network of the certificate in" in said.err
    assert "its weights differ" in said.err
    assert out.read_bytes() != before
    # As the bundle says, not as the data is.
    assert {each.key: each.value for each in onnx.load(out).metadata_props}["image_mean"] == "[0.25]"


def _other(folder: Path) -> Path:
    """A checkpoint of the same architecture with other weights."""
    torch.save(build("basicnet", ARGS).state_dict(), folder / "other.pt")
    return folder / "other.pt"


def test_a_checkpoint_is_exported_as_it_is(place, tmp_path, capsys):
    given = (place / "net.pt", *ARCH, "-o", tmp_path / "int8.onnx", "--int8", "--data", place / "data.npz", "--json")
    assert run(*given) == 0
    first, second = json.loads(capsys.readouterr().out)["certificate"]["networks"]
    assert (first["name"], second["name"]) == ("dense", "dense int8")
    assert first["weights"] == second["weights"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--int8"], "--int8 is calibrated on training images; name them with --data"),
        (["--calibration-images", "3"], "--calibration-images is for --int8; give that too, or leave it out"),
        (["--dense", "net.pt"], "--dense is for --int8; give that too, or leave it out"),
        (
            ["--int8", "--data", "data.npz", "--calibration-images", "41"],
            "at most so many with --calibration-images",
        ),
        (["--int8", "--data", "digits"], "name the data that it was trained on"),
    ],
)
def test_what_does_not_go_together_is_one_line(options, message, place, tmp_path, capsys):
    words = [str(place / word) if (place / word).exists() else word for word in options]
    assert message in refused(capsys, place / "slim", "-o", tmp_path / "net.onnx", *words)
    assert not list(tmp_path.iterdir())


def test_int8_is_for_onnx_files_and_for_openvino(place, tmp_path, capsys):
    given = (place / "slim", "--int8", "--data", place / "data.npz", "-o")
    assert "--int8 is for ONNX files and for OpenVINO" in refused(capsys, *given, tmp_path / "net.pt2")
    assert "net does not end in .xml" in refused(capsys, *given, tmp_path / "net", "--format", "openvino")
    assert not list(tmp_path.iterdir())


def test_a_bundle_in_int8_for_openvino(place, tmp_path, capsys):
    """Quantised by NNCF, verified, and measured beside an ONNX file."""
    with without_telemetry():
        pytest.importorskip("nncf")
    out = tmp_path / "net.xml"
    given = (place / "slim", "-o", out, "--int8", "--data", place / "data.npz")
    assert run(*given, "--dense", place / "net.pt") == 0
    said = capsys.readouterr().out
    for words in ("dense int8", "slim int8", "by NNCF", "under openvino", "next: openvino.Core().compile_model("):
        assert words in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.bin", "net.xml", "net.xml.json"]
    assert "net.xml exists" in refused(capsys, *given)
    assert slimnet_cli.run(["verify", str(out), "--data", str(place / "data.npz")]) == 0
    assert "is the file of its certificate; its accuracy on 20 test images" in capsys.readouterr().out
    both = ["benchmark", str(place / "slim" / "model.onnx"), f"int8={out}", "--data", str(place / "data.npz")]
    assert slimnet_cli.run([*both, "--seconds", "0.02", "--batch", "1", "--threads", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["runtime"] for each in found["latencies"]} == {"openvino"}
    assert found["counts"][0]["macs"] == found["counts"][1]["macs"]
    assert [each["runtime"] for each in found["accuracies"]] == ["openvino"]
    assert slimnet_cli.run([*both, "--runtime", "onnxruntime"]) == 2
    assert "int8 has no ONNX file, which onnxruntime needs" in capsys.readouterr().err


def test_without_nncf_nothing_is_read(tmp_path, capsys, monkeypatch):
    """The refusal comes before the data, which does not exist, is looked at."""
    monkeypatch.setattr(nncf_package, "installed_version", lambda _: nncf_package.NOT_INSTALLED)
    (tmp_path / "net.pt").write_text("no checkpoint")
    line = refused(capsys, tmp_path / "net.pt", "-o", tmp_path / "net.xml", "--int8", "--data", "digits")
    assert (
        "nncf is not installed, which quantises for OpenVINO; pip install '.[openvino-int8]' in a clone of slimnet"
        in line
    )


@pytest.mark.parametrize(("out", "taken"), [("net.xml", "net.xml"), ("net.pt2", "net.pt2")])
def test_a_file_that_is_there_is_not_replaced_unasked(out, taken, place, tmp_path, capsys):
    (tmp_path / taken).write_text("what was there")
    line = refused(capsys, place / "slim", "-o", tmp_path / out)
    assert f"{taken} exists; name another file, or replace it with --force" in line
    assert [path.read_text() for path in tmp_path.iterdir()] == ["what was there"]


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize(
    ("out", "there", "message"),
    [
        (
            "net.param",
            ("net.xml", "net.bin"),
            "net.bin, which {0}/net.param needs, belongs to {0}/net.xml; name another",
        ),
        ("net.xml", ("net.xml", "net.param", "net.bin"), "net.bin, which {0}/net.xml needs, belongs to {0}/net.param"),
        (
            "net.xml",
            ("net.bin",),
            "net.bin, which {0}/net.xml needs, exists and belongs to something else; name another",
        ),
        (
            "net.onnx",
            ("net.onnx.json",),
            "net.onnx.json, which {0}/net.onnx needs, exists and belongs to something else",
        ),
    ],
)
def test_a_part_of_another_file_is_never_replaced(out, there, message, force, place, tmp_path, capsys):
    for name in there:
        (tmp_path / name).write_text(name)
    quantised = ("--int8", "--data", place / "data.npz") if out == "net.onnx" else ()
    assert message.format(tmp_path) in refused(capsys, place / "slim", "-o", tmp_path / out, *force, *quantised)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: name for name in there}


def test_a_file_for_openvino_takes_the_place_of_an_earlier_one(place, tmp_path):
    pytest.importorskip("openvino")
    for name in ("net.xml", "net.bin"):
        (tmp_path / name).write_text("earlier")
    assert run(place / "slim", "-o", tmp_path / "net.xml", "--force") == 0
    assert (tmp_path / "net.bin").read_bytes() != b"earlier"


def test_a_file_without_a_certificate_is_not_verified(place, tmp_path, capsys):
    assert run(place / "slim", "-o", tmp_path / "plain.onnx") == 0
    capsys.readouterr()
    assert slimnet_cli.run(["verify", str(tmp_path / "plain.onnx"), "--data", "none.npy"]) == 2
    line = (
        "plain.onnx has no certificate beside it (plain.onnx.json); verify takes files of export --int8, which writes"
    )
    assert line in capsys.readouterr().err
