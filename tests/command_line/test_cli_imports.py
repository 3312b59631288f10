"""Packages that take seconds to import are imported by the commands that need them."""

import json
import subprocess
import sys

import pytest
from command_line import SHORT

IN_TURN = """
import contextlib, io, json, sys
import slimnet, slimnet_cli

WATCHED = "torch torch._dynamo scipy sklearn matplotlib jinja2 fvcore torch_pruning sympy onnxscript".split()
found = [["import", 0, [name for name in WATCHED if name in sys.modules]]]
for line in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        code = slimnet_cli.run(line)
    found.append([line[0], code, [name for name in WATCHED if name in sys.modules]])
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def imported(basic, tmp_path_factory):
    """The watched packages that are loaded after each command, in one process."""
    folder = tmp_path_factory.mktemp("imports")
    bundle = str(basic.folder)
    lines = [
        ["slim", bundle, "--dry-run"],
        ["inspect", bundle],
        ["benchmark", "--seconds", "0.01", bundle, bundle],
        ["verify", bundle],
        ["train", "digits", "--iterations", "1", *SHORT, "-o", "net.pt"],
        ["export", bundle, "-o", "net.onnx"],
    ]
    command = [sys.executable, "-c", IN_TURN]
    run = subprocess.run(command, cwd=folder, input=json.dumps(lines), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert [code for _, code, _ in found] == [0] * len(found)
    return [(name, set(names)) for name, _, names in found]


def test_the_library_and_its_commands_import_what_they_use(imported):
    """Oracle: the loaded modules."""
    assert imported[0] == ("import", set())
    first: dict[str, str] = {}
    for name, packages in imported:
        first = dict.fromkeys(packages, name) | first
    packages_of = {
        "slim": {"torch"},
        "inspect": {"fvcore"},
        # A ratio of times has an interval by the quantiles of scipy.
        "benchmark": {"scipy"},
        # torch.export loads the .pt2 file.
        "verify": {"sympy", "torch._dynamo"},
        "export": {"onnxscript"},
    }
    assert first == {package: name for name, packages in packages_of.items() for package in packages}
