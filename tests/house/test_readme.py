"""README and manual are true: their blocks run as they are printed, and what the README links to exists."""

import itertools
import re
import shlex
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import slimnet_cli
import torch

from slimnet.sweep import read_grid
from slimnet.torch_state.process import torch_threads

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MANUAL = (ROOT / "docs" / "manual.md").read_text(encoding="utf-8")
WORDS_AT_MOST = 300
"""In the README's sentences and links: two minutes if read aloud."""


def blocks(language: str, text: str = MANUAL) -> list[str]:
    """The texts between fences; every other fence ends a block."""
    fenced = re.split(r"^```(.*)\n", text, flags=re.MULTILINE)[1:]
    return [text for name, text in zip(fenced[::4], fenced[1::4], strict=True) if name == language]


(THREE_LINES,) = blocks("python", README)
QUICK_START, SHRINKING = blocks("python")


def test_the_readme_is_one_screen():
    without_blocks = re.sub(r"^```.*?^```$|^\|.*?$|<!--.*?-->", "", README, flags=re.MULTILINE | re.DOTALL)
    shown = re.sub(r"\]\([^)]+\)|[`*#\[]", " ", without_blocks)
    assert 100 < len(shown.split()) <= WORDS_AT_MOST
    assert len(re.findall(r"^\| ", README, re.MULTILINE)) <= 6


def test_the_three_lines_of_the_readme_run(tmp_path, monkeypatch, capsys):
    """On a network whose channels are dead by hand, as in the manual."""
    monkeypatch.chdir(tmp_path)
    setting, _, _ = QUICK_START.partition("slimmed = ")
    exec(compile(setting + THREE_LINES, "README.md", "exec"), {"__name__": "__main__"})
    assert "certificate holds" in capsys.readouterr().out
    assert (tmp_path / "slim" / "model.onnx").is_file()


def test_the_python_quick_start_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(QUICK_START, "manual.md", "exec"), {"__name__": "__main__"})
    assert "certificate holds" in capsys.readouterr().out
    assert (tmp_path / "slim.onnx").is_file()


def test_the_loop_with_a_shrinker_runs_and_cuts_what_is_dead(capsys):
    """As printed nothing dies in four steps; so channels die before it, and there are looks enough to see them."""
    dying = "for norm in model.modules():\n    if isinstance(norm, torch.nn.BatchNorm2d):\n"
    dying += "        norm.weight.data[::3], norm.bias.data[::3] = 1e-8, -1e-8\n"
    loop = SHRINKING.replace("for iteration in range(1, 5)", f"{dying}for iteration in range(1, 9)")
    assert loop != SHRINKING
    with torch.random.fork_rng(devices=[]), torch_threads(1):
        torch.manual_seed(0)
        names = {"__name__": "__main__"}
        exec(compile(loop, "manual.md", "exec"), names)
    assert "channels removed, MACs" in capsys.readouterr().out
    assert names["shrinker"].plan.macs_after < names["shrinker"].plan.macs_before
    assert names["loss"].isfinite()


@pytest.mark.parametrize("script", blocks("sh"))
def test_the_command_line_quick_start_runs(script, tmp_path, monkeypatch, capsys):
    """Line by line in one process, which has imported torch by then; a shell would do no more with these lines.

    The training is shortened.
    """
    monkeypatch.chdir(tmp_path)
    with torch_threads(1):
        for line in script.splitlines():
            program, *arguments = shlex.split(line, comments=True)
            if arguments[0] == "train":
                arguments += ["--iterations", "100"]
            if program == "cp":
                shutil.copy(*arguments)
            else:
                assert program == "slimnet"
                assert slimnet_cli.run(arguments) == 0, capsys.readouterr().err
    assert "certificate holds" in capsys.readouterr().out
    assert (tmp_path / "slim.onnx").is_file()


def test_the_command_that_pip_installs_is_the_one_that_runs_here():
    (command,) = entry_points(group="console_scripts", name="slimnet")
    assert command.load() is slimnet_cli.main


def test_the_readme_names_every_command():
    assert set(slimnet_cli.commands.commands) <= set(re.findall(r"`([a-z]+)`", README))


def test_every_command_but_demo_and_checks_is_shown():
    shown = set(re.findall(r"^slimnet (\w+)", "".join(blocks("sh") + blocks("")), re.MULTILINE))
    assert shown == set(slimnet_cli.commands.commands) - {"demo", "checks"}


def test_every_file_that_is_linked_to_exists():
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert targets
    assert not [target for target in targets if not (ROOT / target.partition("#")[0]).exists()]


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{target}:" in makefile for target in re.findall(r"\bmake (\w+)", README) if target != "and")


def test_the_grid_that_is_shown_is_one(tmp_path):
    """Six recipes, two λ times three seeds."""
    (text,) = blocks("toml")
    (tmp_path / "grid.toml").write_text(text)
    assert len(read_grid(tmp_path / "grid.toml")) == 6


@pytest.mark.parametrize(
    "line", re.findall(r"^(?:torchrun .*-m slimnet_cli|slimnet) (train .*)$", "".join(blocks("")), re.M)
)
def test_every_training_command_that_is_shown_is_understood(line, tmp_path, monkeypatch):
    """The options exist and their values parse; what it names is there, and is not read."""
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(line, comments=True)[1:]
    outputs = [name for option, name in itertools.pairwise(arguments) if option == "-o"]
    for path in map(Path, arguments):
        path.parent.mkdir(parents=True, exist_ok=True)
        if str(path) not in outputs:
            path.touch()
    context = slimnet_cli.commands.commands["train"].make_context("train", arguments)
    assert context.params
