"""Networks in OpenVINO's format: what the two files compute, what they state, and that none is left half-written."""

import sys
from pathlib import Path

import pytest
import slimnet_cli
import torch
from torch import nn

import slimnet
from slimnet.errors import ExportError, UsageError
from slimnet.export.openvino import export_openvino
from slimnet.export.openvino_model import load_openvino

EXAMPLE = torch.randn(2, 3, 12, 12)


def small(width: int = 6) -> nn.Module:
    torch.manual_seed(width)
    layers = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(width, 4)).eval()


class Unknown(nn.Module):
    """A determinant, which OpenVINO does not have."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.linalg.det(images)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_files_compute_what_the_network_does_at_any_batch_and_size(tmp_path):
    """Oracle: the module; OpenVINO itself reads the files, in float32: with bfloat16 units it would choose that."""
    model = small()
    export = export_openvino(model, EXAMPLE, tmp_path / "net.xml", metadata={"who": "me"}, dynamic_size=True)
    assert sorted(files(tmp_path)) == ["net.bin", "net.xml"]
    assert export.size_bytes == sum(map(len, files(tmp_path).values()))
    assert "OpenVINO" in str(export)
    core = load_openvino().Core()
    network = core.read_model(str(export.path))
    assert network.get_rt_info(["slimnet", "who"]).astype(str) == "me"
    assert network.get_rt_info(["slimnet", "slimnet"]).astype(str) == slimnet.__version__
    run = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in ((1, 3, 12, 12), (4, 3, 20, 16)):
        images = torch.randn(shape)
        (found,) = run([images.numpy()]).values()
        assert torch.allclose(torch.from_numpy(found), model(images), rtol=1e-4, atol=1e-5)


def test_earlier_files_are_replaced_together_or_stay(tmp_path):
    target = tmp_path / "net.xml"
    export_openvino(small(), EXAMPLE, target)
    before = files(tmp_path)
    with pytest.raises(ExportError, match=r"OpenVINO does not read the network: .*Det"):
        export_openvino(Unknown(), torch.randn(2, 3, 3), target)
    assert files(tmp_path) == before
    export_openvino(small(8), EXAMPLE, target)
    assert all(before[name] != content for name, content in files(tmp_path).items())


def test_what_cannot_be_written_is_refused_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"does not end in \.xml"):
        export_openvino(small(), EXAMPLE, tmp_path / "net.ir")
    (tmp_path / "net.bin").mkdir()
    with pytest.raises(ExportError, match=r"net\.bin: it is a folder"):
        export_openvino(small(), EXAMPLE, tmp_path / "net.xml")
    assert [path.name for path in tmp_path.iterdir()] == ["net.bin"]
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        UsageError, match=r"openvino is not installed; pip install '\.\[openvino\]' in a clone of slimnet"
    ):
        export_openvino(small(), EXAMPLE, tmp_path / "other.xml")


def test_the_command_line_writes_them_from_a_bundle(tmp_path, capsys):
    slimnet.save(slimnet.slim(small(), EXAMPLE), tmp_path / "slim")
    given = ["export", str(tmp_path / "slim"), "--arch", f"{__name__}:small", "-o", str(tmp_path / "net.xml")]
    assert slimnet_cli.run([*given, "--opset", "18"]) == 2
    assert "--opset is for ONNX files" in capsys.readouterr().err
    assert slimnet_cli.run(given) == 0
    said = capsys.readouterr().out
    assert "net.bin" in said
    assert "next: openvino.Core().compile_model(" in said
    assert "onnxruntime" not in said
    assert (tmp_path / "net.xml").is_file()
    assert (tmp_path / "net.bin").is_file()
