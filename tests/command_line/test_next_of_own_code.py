"""The commands that are named for networks of one's own code run as they are printed."""

import json

import pytest
import slimnet_cli
import torch
from command_line import SHORT
from test_next_step import next_of

import slimnet
from slimnet.models import build

NET = """
from torch import nn

class Small(nn.Module):
    def __init__(self, width=6, in_channels=1, num_classes=10):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(in_channels, width, 3), nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))
"""
OWN, WIDTH = "mine/net.py:Small", json.dumps({"width": 8})
NAMED = ("--arch", OWN, "--arch-args", WIDTH)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder with a network in a file, and a checkpoint of it in which two channels are dead."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "net.py").write_text(NET)
    model = build(OWN, {"width": 8})
    with torch.no_grad():
        model.norm.weight[:2], model.norm.bias[:2] = 0.0005, -1.0
    torch.save({"model": model.state_dict(), "ema": model.state_dict()}, "mine/small.pt")


def said(words, capsys) -> list[str]:
    """Run a command; returns the words of the next one."""
    assert slimnet_cli.run(list(words)) == 0, capsys.readouterr().err
    return next_of(capsys.readouterr().out)


def test_from_a_budget_to_a_file(capsys):
    budget = ("--data", "digits", "--target-macs", "0.5", "--round", "none")
    tune = said(["slim", "mine/small.pt", *NAMED, *budget, "-o", "own"], capsys)
    assert tune == ["finetune", "own", "--trust", "--data", "digits", "-o", "own-tuned"]
    export = said([*tune, "--iterations", "1", "--tests", "1"], capsys)
    assert export == ["export", "own-tuned", "--trust", "-o", "own-tuned.onnx"]
    assert slimnet_cli.run(export) == 0


def test_from_exact_slimming_to_a_file(capsys):
    verify = said(["slim", "mine/small.pt", *NAMED, "--input-shape", "1,8,8", "--round", "none", "-o", "own"], capsys)
    assert verify == ["verify", "own", "--trust"]
    export = said(verify, capsys)
    assert export == ["export", "own", "--trust", "-o", "own.onnx"]
    assert slimnet_cli.run(export) == 0
    capsys.readouterr()
    named = said(["verify", "own", *NAMED], capsys)
    assert named == ["export", "own", *NAMED, "-o", "own.onnx"], "who names the network need not trust the bundle"


def test_a_ladder(capsys):
    steps = ("--steps", "0.5", "--round", "none", "-o", "rungs")
    tune = said(["ladder", "mine/small.pt", *NAMED, "--data", "digits", *steps], capsys)
    assert tune[:2] == ["finetune", "rungs/macs-0.5"]
    assert tune[2:] == ["--trust", "--data", "digits", "-o", "tuned/"]
    assert slimnet_cli.run([*tune, "--iterations", "1", "--tests", "1"]) == 0
    capsys.readouterr()
    export = said(["ladder", "mine/small.pt", *NAMED, "--input-shape", "1,8,8", *steps[:-1], "others"], capsys)
    assert export == ["export", "others/exact", "--trust", "-o", "exact.onnx"]


def test_a_run(capsys):
    short = [word for word in SHORT if not word.startswith("{") and word not in ("--arch", "basicnet", "--arch-args")]
    slim = said(["train", "digits", *NAMED, "--iterations", "1", *short, "-o", "run"], capsys)
    assert slim == ["slim", "run", "--trust", "-o", "slim/"]
    assert said(["report", "run"], capsys) == slim
    assert slimnet_cli.run(slim) == 0


def test_a_census_hands_on_how_it_looked(capsys):
    how = ("--weights", "ema", "--input-shape", "1,16,16")
    slim = said(["census", "mine/small.pt", *NAMED, *how, "--threshold", "0.002"], capsys)
    assert slim == ["slim", "mine/small.pt", *NAMED, *how, "--threshold", "0.002", "-o", "slim/"]
    assert slimnet_cli.run(slim) == 0


def test_an_analysis_hands_on_its_images(capsys):
    slim = said(["analyse", "mine/small.pt", *NAMED, "--data", "digits"], capsys)
    assert slim == ["slim", "mine/small.pt", *NAMED, "--data", "digits", "-o", "slim/"]
    assert slimnet_cli.run(slim) == 0


def test_a_bundle_that_names_no_architecture_is_run_as_it_is(capsys):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    slimnet.save(slimnet.slim(model, torch.randn(2, 1, 8, 8)), "plain")
    assert slimnet_cli.run(["verify", "plain"]) == 0
    assert "next: onnxruntime.InferenceSession('plain/model.onnx') runs it" in capsys.readouterr().out
