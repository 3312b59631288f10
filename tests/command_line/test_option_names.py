"""Advice names the argument in Python and the option on the command line, in every message of the library."""

import ast
import json
import re
from pathlib import Path

import pytest
import slimnet_cli
import torch
from slimnet_cli.output.option_names import OPTIONS, with_options

import slimnet
from slimnet.models import build

LIBRARY = Path(slimnet.__file__).parent
IN_PYTHON_ALONE = {"also=", "costs=", "latency=", "like="}
"""Arguments that no command takes: of the shrinker, a recipe's regulariser, a search by latency, and of `save`."""


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "find dead channels on more data, or allow more with tolerance=",
            "find dead channels on more data, or allow more with --tolerance",
        ),
        (
            "say so with trust=True, or name the network with model=",
            "say so with --trust, or name the network with --arch",
        ),
        ("say so with trust=True, or Recipe.trusted()", "say so with --trust, or name it with --arch"),
        ("replace it with overwrite=True", "replace it with --force"),
        ("pass loader=; or keep=", "pass --data; or --keep"),
        (
            "runs/tolerance=3/net.pt, tolerance=0.1 and model='a'",
            "runs/tolerance=3/net.pt, tolerance=0.1 and model='a'",
        ),
        ("mean=0.5:std=0.5", "mean=0.5:std=0.5"),
    ],
)
def test_arguments_become_options_and_names_of_files_stay(message, shown):
    assert with_options(message) == shown


def test_every_option_is_one_of_a_command():
    known = {
        name for command in slimnet_cli.commands.commands.values() for each in command.params for name in each.opts
    }
    assert {word for shown in OPTIONS.values() for word in re.findall(r"--[a-z][a-z0-9-]*", shown)} <= known


def test_every_argument_in_a_message_of_the_library_has_its_option():
    """Oracle: the text of all errors that the library raises. An option in brackets behind it would stay in Python."""
    found = {}
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            texts = [
                each.value
                for each in ast.walk(node.exc)
                if isinstance(each, ast.Constant) and isinstance(each.value, str)
            ]
            for text in texts:
                found |= {
                    name: str(path)
                    for name in re.findall(r"(?<![\w/.=-])([a-z][a-z_0-9]+=)(?:True)?(?![\w\'\"{\[(])", text)
                }
                assert not re.search(r"= \(--", text), text
    known = {name.partition("=")[0] + "=" for name in OPTIONS}
    assert {name: path for name, path in found.items() if name not in known | IN_PYTHON_ALONE} == {}
    assert {"loader=", "model=", "keep="} <= found.keys()


def test_a_certificate_that_does_not_hold_names_the_option(tmp_path, monkeypatch, capsys):
    """A channel whose |γ| is just below a high threshold is not dead, and the outputs move."""
    arguments = {"widths": [6, 8], "pool_after": [1], "hidden": 8, "in_channels": 1}
    torch.manual_seed(0)
    torch.save(build("basicnet", arguments).state_dict(), tmp_path / "net.pt")
    line = ["slim", str(tmp_path / "net.pt"), "--arch", "basicnet", "--arch-args", json.dumps(arguments)]
    line += ["--input-shape", "1,16,16", "--threshold", "2", "--tolerance", "1e-7", "-o", str(tmp_path / "slim")]
    monkeypatch.setattr("slimnet.pipeline.advice", lambda *_: "lower the threshold, or allow more with tolerance=")
    assert slimnet_cli.run(line) == 1
    assert capsys.readouterr().err.endswith("allow more with --tolerance\n")
