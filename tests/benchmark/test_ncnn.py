"""ncnn behind the protocol of runtimes: what it computes, and what it refuses. No time is judged."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import slimnet_cli
import torch
from torch import nn

import slimnet
from slimnet.benchmark import Contender, Settings, cells
from slimnet.benchmark.contender import Cell
from slimnet.benchmark.runtimes.ncnn import Ncnn, NcnnClassifier
from slimnet.errors import UsageError
from slimnet.export import ncnn_model
from slimnet.modules.example_inputs import Inputs
from slimnet.torch_state.process import DENORMAL

pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

EXAMPLE = torch.randn(2, 3, 16, 16)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, groups=2),
        nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def path(model, tmp_path_factory) -> Path:
    return slimnet.export_onnx(model, EXAMPLE, tmp_path_factory.mktemp("ncnn") / "net.onnx").path


class Strided(nn.Module):
    """Every other pixel, which ncnn cannot take on two axes at once."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, ::2, ::2].mean((2, 3))


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    return slimnet.export_onnx(Strided(), EXAMPLE, tmp_path_factory.mktemp("ncnn") / "odd.onnx").path


@pytest.mark.parametrize(("threads", "batch"), [(1, 3), (2, 1)])
def test_it_computes_what_torch_does(model, path, threads, batch):
    """Oracle: the module."""
    images = torch.randn(batch, *EXAMPLE.shape[1:])
    (found,) = Ncnn().prepare(Contender("net", onnx=path), Cell("cpu", "ncnn", threads, batch), Inputs.of(images))()
    assert torch.allclose(torch.from_numpy(found), model(images), rtol=1e-4, atol=1e-5)
    assert torch.allclose(NcnnClassifier(path, threads)(images), model(images), rtol=1e-4, atol=1e-5)


def test_denormal_numbers_stay_what_they_are_in_torch(path):
    NcnnClassifier(path, 1)(EXAMPLE)
    assert (torch.full((4,), DENORMAL) * 1.0).sum() > 0


def test_inputs_that_do_not_fit_are_refused(path):
    """ncnn itself would read past the end of memory."""
    network = NcnnClassifier(path, 1)
    with pytest.raises(ValueError, match=r"converted for inputs of \(3, 16, 16\) each"):
        network(torch.randn(1, 4, 16, 16))
    with pytest.raises(ValueError, match="float32, not float64"):
        network(EXAMPLE.double())
    with pytest.raises(UsageError, match="net does not run on inputs of"):
        Ncnn().prepare(Contender("net", onnx=path), Cell("cpu", "ncnn", 1, 2), Inputs.of(EXAMPLE.double()))


def test_a_layer_that_it_has_not_is_named(odd):
    """It would end the process."""
    contender = Contender("odd", onnx=odd)
    objection = Ncnn().objection(contender)
    assert objection is not None
    assert "odd.onnx: ncnn has no Tensor.slice, which it needs; leave ncnn out" in objection
    with pytest.raises(UsageError, match=r"ncnn has no Tensor\.slice"):
        cells([contender, contender], Settings((1,), 1, 0.01, runtimes=("ncnn",)))


def test_what_pnnx_does_not_convert_is_said_in_one_line(path, tmp_path, monkeypatch):
    program = tmp_path / "pnnx"
    program.write_text("#!/bin/sh\necho first >&2\necho it is broken >&2\nexit 3\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(ncnn_model, "converter", lambda: program)
    with pytest.raises(UsageError, match=r"net\.onnx: pnnx does not convert it: it is broken; leave ncnn out"):
        ncnn_model.convert(path, [(3, 8, 8)])


def test_where_it_is_not_installed_it_says_so(monkeypatch):
    with monkeypatch.context() as changed:
        changed.setitem(sys.modules, "ncnn", None)
        assert Ncnn().obstacle("cpu") == "ncnn is not installed; pip install '.[ncnn]' in a clone of slimnet"
    monkeypatch.setattr(ncnn_model, "converter", lambda: None)
    assert "needs pnnx" in str(Ncnn().obstacle("cpu"))
    assert "not on cuda" in str(Ncnn().obstacle("cuda"))


def test_the_command_line_measures_it_on_request(path, capsys):
    """Not by itself: a conversion takes seconds."""
    assert importlib.util.find_spec("ncnn") is not None
    line = ["benchmark", f"a={path}", f"b={path}", "--seconds", "0.01", "--batch", "1", "--threads", "1", "--json"]
    assert slimnet_cli.run([*line, "--runtime", "ncnn"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {each["runtime"] for each in found["latencies"]} == {"ncnn"}
    pair = [Contender("a", onnx=path), Contender("b", onnx=path)]
    assert "ncnn" not in {cell.runtime for cell in cells(pair, Settings((1,), 1, 0.01))}
