"""The journeys of users, as the scripts that are shown: each command takes what the one before it made.

The lines of the scripts are run one by one in this process, so that torch is imported once. A plain run takes the first
journey, `make test-all` every one.
"""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import slimnet_cli
import torch

import slimnet
from slimnet.bundle.bundle import read_certificate
from slimnet.data import load_data
from slimnet.training.run.run_folder import recipe_of

JOURNEYS = Path(__file__).parents[2] / "examples" / "journeys"


def travel(name: str, *arguments: str) -> int:
    """Run the lines of a script with its arguments; the number of commands."""
    lines = (JOURNEYS / f"{name}.sh").read_text().splitlines()
    variables: dict[str, str] = {}
    commands = 0
    for line in lines:
        if assigned := re.fullmatch(r"(\w+)=\$(?:(\d)|\{(\d):-(\w+)\})", line):
            variable, number, other, default = assigned.groups()
            place = int(number or other)
            variables[variable] = arguments[place - 1] if place <= len(arguments) else default
        elif line.startswith("slimnet "):
            given = [re.sub(r"\$(\w+)", lambda found: variables[found[1]], word) for word in shlex.split(line)[1:]]
            assert slimnet_cli.run(given) == 0, given
            commands += 1
        else:
            assert not line or line.startswith("#") or line == "set -eu", line
    return commands


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The journey from nothing, shortened: too few steps for filters to die."""
    out = tmp_path_factory.mktemp("from_nothing")
    assert travel("from_nothing", str(out), "60") == 4
    return out


def test_from_nothing_to_an_onnx_file(run):
    """Oracle: torch on the dense weights that the run left."""
    images = load_data("digits").normalise(load_data("digits").x_test[:8])
    session = onnxruntime.InferenceSession(run / "net.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert (run / "run" / "model_best.pt").is_file()
    expected = slimnet.load(run / "slim")(images)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-3, atol=1e-4)
    assert read_certificate(run / "slim").holds


@pytest.mark.sweep
def test_from_a_checkpoint_to_half_the_macs(run, tmp_path, capsys):
    """A checkpoint away from its run, as anybody's: its network has to be named."""
    recipe = recipe_of(run / "run")
    checkpoint = shutil.copy(run / "run" / "model.pt", tmp_path / "net.pt")
    network = (recipe.arch, json.dumps(recipe.arch_args))
    assert travel("from_checkpoint", str(checkpoint), *network, "digits", str(tmp_path), "30") == 5
    exact, tuned = (slimnet.load(tmp_path / name) for name in ("exact", "tuned"))
    macs = [read_certificate(tmp_path / name).macs_after for name in ("exact", "tuned")]
    assert macs[1] <= 0.5 * macs[0]
    assert sum(map(torch.numel, tuned.parameters())) < sum(map(torch.numel, exact.parameters()))
    assert "exact" in capsys.readouterr().out


@pytest.mark.sweep
def test_to_a_file_that_takes_bytes(run, tmp_path):
    """Oracle: the network after the normalisation of the data, on the same bytes."""
    assert travel("to_a_device", str(run / "run"), "digits", str(tmp_path), "30") == 3
    assert read_certificate(tmp_path / "fast").latency is not None
    data, network = load_data("digits"), slimnet.load(tmp_path / "tuned")
    pixels = data.x_test[:8]
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: pixels.numpy()})
    np.testing.assert_allclose(found, network(data.normalise(pixels)).detach().numpy(), rtol=1e-3, atol=1e-4)


def test_the_scripts_are_plain_shell():
    """Every script says how it is called, stops at the first error, and is not written for one shell."""
    for path in JOURNEYS.glob("*.sh"):
        text = path.read_text()
        assert text.startswith("#!/bin/sh\n# From ")
        assert f"sh {path.relative_to(JOURNEYS.parents[1])} " in text
        subprocess.run(["sh", "-n", path], check=True)
