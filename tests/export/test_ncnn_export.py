"""Networks in ncnn's format: what the two files compute, and that none is left half-written."""

import sys
from pathlib import Path

import numpy as np
import pytest
import slimnet_cli
import torch
from torch import nn

import slimnet
from slimnet.errors import ExportError, UsageError
from slimnet.export.ncnn import export_ncnn

ncnn = pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

EXAMPLE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def small(width: int = 6) -> nn.Module:
    """A network whose BatchNorm has two dead channels."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 8, 3), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip
    network[1].weight.data[:2] = 0
    return network


class Strided(nn.Module):
    """Every other pixel, which ncnn cannot take on two axes at once."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, ::2, ::2].mean((2, 3))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_files_compute_what_the_network_does(tmp_path):
    """Oracle: the module; the files are read by ncnn alone, in float32."""
    model = small()
    found = export_ncnn(model, EXAMPLE, tmp_path / "net.param")
    assert sorted(files(tmp_path)) == ["net.bin", "net.param"]
    assert found.size_bytes == sum(map(len, files(tmp_path).values()))
    assert found.inputs == ((3, 16, 16),)
    assert "single inputs of 3 × 16 × 16" in str(found)
    net = ncnn.Net()
    net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_fp16_packed = False
    assert net.load_param(str(found.path)) == 0
    assert net.load_model(str(found.weights)) == 0
    extractor = net.create_extractor()
    extractor.input(net.input_names()[0], ncnn.Mat(EXAMPLE[0].numpy()))
    _, actual = extractor.extract(net.output_names()[0])
    with torch.no_grad():
        np.testing.assert_allclose(np.array(actual), model(EXAMPLE[:1])[0].numpy(), rtol=1e-4, atol=1e-5)


def test_earlier_files_stay_unless_the_new_ones_are_right(tmp_path, monkeypatch):
    export_ncnn(small(), EXAMPLE, tmp_path / "net.param")
    before = files(tmp_path)
    with pytest.raises(ExportError, match=r"Strided cannot be written for ncnn: ncnn has no Tensor\.slice"):
        export_ncnn(Strided(), EXAMPLE, tmp_path / "net.param")
    with monkeypatch.context() as changed:
        changed.setattr("slimnet.export.ncnn_model.Converted._run_one", lambda self, arrays: [np.zeros(5, np.float32)])
        with pytest.raises(ExportError, match="as ncnn's network differs from the network by"):
            export_ncnn(small(), EXAMPLE, tmp_path / "net.param")
    with pytest.raises(UsageError, match=r"does not end in \.param"):
        export_ncnn(small(), EXAMPLE, tmp_path / "net.ncnn")
    with pytest.raises(UsageError, match="in float32 alone"):
        export_ncnn(small().double(), EXAMPLE.double(), tmp_path / "net.param")
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(UsageError, match="ncnn is not installed"):
        export_ncnn(small(), EXAMPLE, tmp_path / "net.param")
    assert files(tmp_path) == before


def test_the_command_line_writes_them_by_name_or_format(tmp_path, capsys):
    slimnet.save(slimnet.slim(small(), EXAMPLE), tmp_path / "slim")
    given = ["export", str(tmp_path / "slim"), "--arch", f"{__name__}:small", "-o"]
    assert slimnet_cli.run([*given, str(tmp_path / "net.param")]) == 0
    said = capsys.readouterr().out
    assert "net.bin: ncnn for single inputs" in said
    assert "next: in ncnn.Net call load_param(" in said
    for options, message in (
        (
            ["net.onnx", "--format", "ncnn"],
            "net.onnx does not have the extension of ncnn; name a file that ends in .param",
        ),
        (["net.pt2", "--format", "openvino"], "name a file that ends in .xml"),
        (["other.param", "--dynamic-size"], "leave --with-preprocessing and --dynamic-size out"),
        (["other.param", "--opset", "18"], "--opset is for ONNX files"),
        (["net.param", "--format", "ncnn"], "net.param exists; name another file, or replace it with --force"),
        (["net.model", "--format", "tflite"], "'tflite' is not one of"),
    ):
        assert slimnet_cli.run([*given, str(tmp_path / options[0]), *options[1:]]) == 2
        assert message in capsys.readouterr().err
    assert slimnet_cli.run([*given, str(tmp_path / "net.model"), "--format", "pt2"]) == 0
    assert "net.model: exported program" in capsys.readouterr().out
