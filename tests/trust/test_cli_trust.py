"""Folders from elsewhere, on the command line: what they name runs only where somebody trusts it or names it too."""

import json
import os
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest
import slimnet_cli
from command_line import SHORT, run

from slimnet.sweep import Store, jobs, read_grid, workers
from slimnet.training import DIGITS_DEMO

CODE = "canary:network"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one's own, of seven steps."""
    folder = tmp_path_factory.mktemp("trust") / "run"
    assert run("digits", *SHORT, "--iterations", 7, "-o", folder) == 0
    return folder


@pytest.fixture
def hostile(finished, tmp_path, monkeypatch):
    """A run's folder whose recipe says that its network is made by code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "canary", raising=False)
    folder = Path(shutil.copytree(finished, tmp_path / "hostile"))
    change(folder / "recipe.json", arch=CODE, arch_args={})
    return folder


def change(recipe: Path, **fields: object) -> None:
    recipe.write_text(json.dumps(json.loads(recipe.read_text()) | fields))


def refused(capsys, *arguments: object) -> str:
    """The one line with which a command is refused as misuse."""
    assert slimnet_cli.run(list(map(str, arguments))) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "rror" in each]
    return line


COMMANDS = {
    "analyse": lambda folder: ("analyse", folder),
    "resume": lambda folder: ("train", "--resume", folder),
    "another's recipe": lambda folder: ("train", "digits", "--recipe", folder / "recipe.json", "-o", "new"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_not_run_what_a_folder_names(command, hostile, capsys):
    line = refused(capsys, *COMMANDS[command](hostile))
    assert f"would import and call {CODE}" in line
    assert "--trust" in line
    assert not Path("executed").exists()
    assert not Path("new").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_it_does_where_it_is_trusted(command, hostile, capsys):
    """It is another network than the checkpoint's, so that nothing more comes of it."""
    slimnet_cli.run([*map(str, COMMANDS[command](hostile)), "--trust"])
    assert Path("called").exists()


@pytest.mark.parametrize("command", ["analyse", "resume"])
def test_it_does_where_the_same_is_named(command, hostile, capsys):
    slimnet_cli.run([*map(str, COMMANDS[command](hostile)), "--arch", CODE])
    assert Path("called").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_arguments_in_a_folder_reach_for_nothing(command, hostile, capsys):
    change(hostile / "recipe.json", arch="timm:resnet18", arch_args={"checkpoint_path": "x.pth"})
    assert "says where weights come from" in refused(capsys, *COMMANDS[command](hostile))


def test_naming_the_network_does_not_trust_the_arguments_of_a_file(hostile, capsys):
    change(hostile / "recipe.json", arch="timm:resnet18", arch_args={"checkpoint_path": "x.pth"})
    for command in ("analyse", "resume"):
        line = refused(capsys, *COMMANDS[command](hostile), "--arch", "timm:resnet18")
        assert "says where weights come from" in line


@pytest.fixture
def in_this_process(monkeypatch):
    """A sweep whose runs are trained here, with the arguments that their own processes would get."""
    monkeypatch.setattr(workers, "Here", lambda concurrent: workers.InTurn(slimnet_cli.run))


GRID = """
[base]
arch = "basicnet"
data = "digits"
iterations = 2
arch_args = {widths = [4, 8], pool_after = [1], hidden = 8, in_channels = 1}
"""


def test_a_sweep_trains_its_grid_whatever_its_folder_says(hostile, tmp_path, in_this_process):
    """The table in the folder asks for code under the key of the grid's cell, and so does the run's folder."""
    grid, out = tmp_path / "grid.toml", tmp_path / "sweep"
    grid.write_text(GRID)
    (cell,) = read_grid(str(grid))
    out.mkdir()
    Store(out / "sweep.sqlite").add([cell])
    evil = (hostile / "recipe.json").read_text()
    with sqlite3.connect(out / "sweep.sqlite") as table:
        table.execute("UPDATE cells SET recipe = ?", [evil])
    assert slimnet_cli.run(["sweep", str(grid), "-o", str(out), "--threads", "1"]) == 0
    shutil.rmtree(out / "runs" / cell.key)
    shutil.copytree(hostile, out / "runs" / cell.key)
    with sqlite3.connect(out / "sweep.sqlite") as table:
        table.execute("UPDATE cells SET state = 'waiting'")
    assert slimnet_cli.run(["sweep", str(grid), "-o", str(out), "--threads", "1"]) == 1
    assert not list(tmp_path.rglob("executed"))


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"[" * 100_000, None], ids=["no text", "nested", "a pipe"])
def test_a_cell_with_a_damaged_recipe_is_not_trusted(content, tmp_path):
    recipe = tmp_path / "cell" / "recipe.json"
    recipe.parent.mkdir()
    if content is None:
        os.mkfifo(recipe)
    else:
        recipe.write_bytes(content)
    arguments = jobs.command(jobs.Job("cell", DIGITS_DEMO.to_json(), recipe.parent, tmp_path))
    assert "--resume" in arguments
    assert "--trust" not in arguments


def test_a_sweep_may_use_code_of_ones_own(tmp_path, monkeypatch, in_this_process):
    monkeypatch.chdir(tmp_path)
    Path("grid.toml").write_text('[base]\narch = "canary:classifier"\ndata = "digits"\niterations = 2\n')
    assert slimnet_cli.run(["sweep", "grid.toml", "-o", "sweep", "--threads", "1"]) == 0
