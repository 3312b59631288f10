"""ExecuTorch behind the protocol of runtimes: what it computes, and what it refuses. No time is judged."""

import json
import os
import sys

import pytest
import slimnet_cli
import torch
from torch import nn

import slimnet
from slimnet.benchmark import Contender, Settings, cells
from slimnet.benchmark.contender import Cell
from slimnet.benchmark.runtimes.executorch import ExecuTorch, ExecuTorchClassifier
from slimnet.errors import UsageError
from slimnet.export.executorch_model import native_messages_dropped, threads_in_use
from slimnet.modules.example_inputs import Inputs
from slimnet.torch_state.process import DENORMAL

pytest.importorskip("executorch")

EXAMPLE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Strided(nn.Module):
    """Every other pixel, for which XNNPACK has no kernel: ExecuTorch's own run it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, ::2, ::2] * 2


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), Strided(),
        nn.Conv2d(6, 8, 3, groups=2), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
def test_it_computes_what_torch_does(model, threads):
    """Oracle: the module."""
    runtime, before = ExecuTorch(), threads_in_use()
    with runtime.session():
        run = runtime.prepare(Contender("net", model), Cell("cpu", "executorch", threads, 2), Inputs.of(EXAMPLE))
        assert threads_in_use() == threads
        (found,) = run()
    assert threads_in_use() == before
    with torch.no_grad():
        torch.testing.assert_close(found, model(EXAMPLE), rtol=1e-4, atol=1e-5)


def test_it_scores_batches_of_several_sizes(model):
    scores = ExecuTorchClassifier(model, "net")
    with torch.no_grad():
        for images in (EXAMPLE, EXAMPLE[:1], -EXAMPLE):
            torch.testing.assert_close(scores(images), model(images), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"made for inputs of \(2, 3, 16, 16\) in float32"):
        scores(torch.randn(3, 3, 16, 16))
    assert (torch.full((4,), DENORMAL) * 1.0).sum() > 0, "torch's arithmetic is what it was"


def test_what_it_does_not_take_is_said_in_one_line(model):
    inverse = torch.nn.Module()
    inverse.forward = torch.linalg.inv  # type: ignore[method-assign]
    cell = Cell("cpu", "executorch", 1, 2)
    with pytest.raises(
        UsageError, match=r"odd does not run on inputs of \(2, 3, 16, 16\): ExportError: odd cannot"
    ) as caught:
        ExecuTorch().prepare(Contender("odd", inverse), cell, Inputs.of(EXAMPLE))
    assert "\n" not in str(caught.value)


def test_where_it_is_not_installed_it_says_so(monkeypatch):
    for name in [each for each in sys.modules if each.partition(".")[0] == "executorch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "executorch", None)
    assert (
        ExecuTorch().obstacle("cpu") == "executorch is not installed; pip install '.[executorch]' in a clone of slimnet"
    )
    assert "not on cuda" in str(ExecuTorch().obstacle("cuda"))


def test_its_messages_stay_off_stderr_and_python_s_do_not(capfd):
    """Oracle: what arrives at the file descriptor, below Python."""
    with native_messages_dropped():
        os.write(2, b"from a library\n")
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"


def test_the_command_line_measures_it_on_request(model, tmp_path, capfd):
    """Not by itself: lowering takes seconds."""
    torch.save(
        slimnet.build("basicnet", {"widths": [4, 6], "pool_after": [1], "hidden": 8}).state_dict(), tmp_path / "a.pt"
    )
    shape = ["--arch", "basicnet", "--arch-args", '{"widths": [4, 6], "pool_after": [1], "hidden": 8}']
    pair = [f"a={tmp_path / 'a.pt'}", f"b={tmp_path / 'a.pt'}"]
    line = ["benchmark", *pair, *shape, "--seconds", "0.01", "--batch", "1", "--threads", "1", "--json"]
    assert slimnet_cli.run([*line, "--runtime", "executorch"]) == 0
    said = capfd.readouterr()
    assert {each["runtime"] for each in json.loads(said.out)["latencies"]} == {"executorch"}
    assert "threadpool" not in said.err
    two = [Contender("a", model), Contender("b", model)]
    assert "executorch" not in {cell.runtime for cell in cells(two, Settings((1,), 1, 0.01))}
