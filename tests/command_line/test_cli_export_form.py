"""slimnet export with preprocessing and of a dynamic size, and what does not go together."""

import json
from pathlib import Path

import onnx
import pytest
import slimnet_cli
import torch
from bundles import ARGS, SHAPE, basic_net

from slimnet.bundle.bundle import load, read_blueprint, save, verify_bundle
from slimnet.data.image_spec import ImageSpec
from slimnet.pipeline import slim

pytestmark = pytest.mark.usefixtures("operators_read_once")

SPEC = ImageSpec((0.25,), (0.5,), SHAPE[1:], ("a", "b", "c"))
ARCH = ("--arch", "basicnet", "--arch-args", json.dumps(ARGS))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, operators_read_once) -> Path:
    """A bundle that does not know its images."""
    return save(slim(basic_net(), torch.randn(2, *SHAPE)), tmp_path_factory.mktemp("bundle") / "slim")


def refused(capsys, *arguments: object) -> str:
    """The one line with which a request is refused."""
    capsys.readouterr()
    assert slimnet_cli.run(["export", *map(str, arguments)]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == 1
    return written.err


def test_a_dynamic_size_is_kept_by_slim_verify_and_like(tmp_path, capsys):
    """And what a bundle knows of its images is used by export; oracle: the network, normalised by hand."""
    torch.save(basic_net().state_dict(), tmp_path / "net.pt")
    folder = tmp_path / "slim"
    shape = ",".join(map(str, SHAPE))
    line = ["slim", str(tmp_path / "net.pt"), *ARCH, "--input-shape", shape, "--normalise", "mean=0.25:std=0.5"]
    assert slimnet_cli.run([*line, "--dynamic-size", "-o", str(folder)]) == 0
    assert read_blueprint(folder).dynamic_size
    result = verify_bundle(folder)
    assert result.sizes == ((8, 8), (16, 24))
    assert "at batch 1 and 5, images of 8 × 8 and 16 × 24" in str(result)
    again = save(load(folder), tmp_path / "again", like=folder)
    assert read_blueprint(again).dynamic_size
    assert [dim.dim_param for dim in onnx.load(again / "model.onnx").graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        "",
        "height",
        "width",
    ]
    capsys.readouterr()
    path = tmp_path / "net.pt2"
    line = ["export", str(folder), "-o", str(path), "--with-preprocessing", "--dynamic-size", "--json"]
    assert slimnet_cli.run(line) == 0
    assert json.loads(capsys.readouterr().out)["sizes"] == [[8, 8], [16, 24]]
    pixels = torch.randint(0, 256, (3, 12, 16, 1), dtype=torch.uint8)
    with torch.no_grad():
        expected = load(folder).eval()((pixels.permute(0, 3, 1, 2) / 255 - 0.25) / 0.5)
    torch.testing.assert_close(torch.export.load(path).module()(pixels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--with-preprocessing"], "it is not known how the network's images are normalised; say it with --normalise"),
        (["--layout", "nchw"], "--layout is that of the bytes of --with-preprocessing; give that too"),
        (["--with-preprocessing", "--layout", "hwc"], "'hwc' is not one of 'nhwc', 'nchw'"),
        (["--with-preprocessing", "--normalise", "imagenet"], "an input has 1 channels, and imagenet is for 3"),
        (["--with-preprocessing", "--normalise", "data"], "--normalise data is measured on the training images"),
        (["--normalise", "mean=0.5"], "'mean=0.5' is not a normalisation; write it as mean=M,...:std=S,..."),
        (["--normalise", "mnist"], "'mnist' is not one of data, imagenet, cifar10, halves, none"),
    ],
)
def test_what_does_not_go_together_is_one_line(options, message, bundle, tmp_path, capsys):
    assert message in refused(capsys, bundle, "-o", tmp_path / "net.onnx", *options)
    assert not list(tmp_path.iterdir())


def test_an_operator_set_is_not_for_a_program(bundle, tmp_path, capsys):
    assert "--opset is for ONNX files" in refused(capsys, bundle, "-o", tmp_path / "net.pt2", "--opset", "18")


def test_a_normalisation_on_the_command_line_is_stated(bundle, tmp_path):
    path = tmp_path / "net.onnx"
    assert slimnet_cli.run(["export", str(bundle), "-o", str(path), "--normalise", "mean=0.25:std=0.5"]) == 0
    about = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert (about["image_mean"], about["image_std"], about["image_size"]) == ("[0.25]", "[0.5]", "[8, 8]")


@pytest.mark.parametrize("name", ["s.tflite", "s", "s.onnx.bak"])
def test_an_unknown_extension_is_refused(name, bundle, tmp_path, capsys):
    line = refused(capsys, bundle, "-o", tmp_path / name)
    assert f"the extension of {tmp_path / name} names no format; name a file that ends in .onnx, .pt2, .xml," in line
    assert not list(tmp_path.iterdir())
    assert slimnet_cli.run(["export", str(bundle), "-o", str(tmp_path / name), "--format", "onnx"]) == 0
    assert onnx.load(tmp_path / name).graph.node


def test_an_extension_in_capitals_is_the_same(bundle, tmp_path, capsys):
    assert slimnet_cli.run(["export", str(bundle), "-o", str(tmp_path / "NET.PT2")]) == 0
    assert "torch.export.load(" in capsys.readouterr().out
    assert slimnet_cli.run(["export", str(bundle), "-o", str(tmp_path / "NET.ONNX")]) == 0
    assert "--opset is for ONNX files" in refused(capsys, bundle, "-o", tmp_path / "OTHER.PT2", "--opset", "18")
    assert "does not end in .xml, by which OpenVINO finds" in refused(capsys, bundle, "-o", tmp_path / "NET.XML")
