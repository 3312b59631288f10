"""Every command ends with what one does next; the commands that it names are accepted as they are printed."""

import ast
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import slimnet_cli
import torch
from command_line import SHORT
from slimnet_cli.commands.compare import _best
from slimnet_cli.commands.train import _next
from slimnet_cli.options.network import Network
from slimnet_cli.options.sources import Source

from slimnet.methods import Budget
from slimnet.models import build

ROOT = Path(slimnet_cli.__file__).parent
ARGUMENTS = {"widths": [6, 8], "pool_after": [1], "hidden": 8, "in_channels": 1}


def next_of(text: str) -> list[str]:
    """The words of the command on the last line."""
    last = text.rstrip("\n").splitlines()[-1]
    assert last.startswith("next: slimnet "), text
    words = shlex.split(last.removeprefix("next: "))[1:]
    command = slimnet_cli.commands.commands[words[0]]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if re.match("--?[a-z]", word)} <= options
    return words


@pytest.mark.parametrize("name", sorted(slimnet_cli.commands.commands))
def test_every_command_says_what_comes_next(name):
    """Oracle: the source, since some commands take minutes. A result as JSON ends where the JSON does."""
    files = [ROOT / "commands" / f"{name}.py", ROOT / "output" / f"{name}_result.py"]
    called = {
        node.func.id
        for file in files
        if file.exists()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called & {"show_next", "say_next", "_next"}


def test_one_gets_from_training_to_a_file_by_what_each_command_says(tmp_path, monkeypatch, capsys):
    """Each line is run as it is printed. The tensors of the bundle and the ONNX file are there at the end."""
    monkeypatch.chdir(tmp_path)
    assert slimnet_cli.run(["train", "digits", "--iterations", "1", *SHORT, "-o", "run"]) == 0
    trained = next_of(capsys.readouterr().out)
    assert slimnet_cli.run(["inspect", "run"]) == 0
    assert next_of(capsys.readouterr().out) == ["slim", "run", "--target-macs", "0.5", "-o", "half/"], "nothing is dead"
    assert slimnet_cli.run(trained) == 0
    assert next_of(capsys.readouterr().out) == ["verify", "slim"]
    assert slimnet_cli.run(["verify", "slim"]) == 0
    words = next_of(capsys.readouterr().out)
    assert slimnet_cli.run(words) == 0
    said = capsys.readouterr().out
    assert "next: onnxruntime.InferenceSession('slim.onnx') runs it" in said
    assert (tmp_path / "slim.onnx").exists()


@pytest.mark.parametrize(
    ("options", "network"),
    [
        ({}, {}),
        ({"weights": "ema", "input_shape": (1, 16, 16)}, {"--weights": "ema", "--input-shape": "1,16,16"}),
    ],
)
def test_a_checkpoint_is_named_with_its_network(options, network):
    source = Source(Path("a b.pt"), Path("a b.pt"), Network("basicnet", ARGUMENTS, **options))
    words = source.arguments
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert words[0] == "a b.pt"
    assert json.loads(given.pop("--arch-args")) == ARGUMENTS
    assert given == {"--arch": "basicnet"} | network


def test_inspect_hands_on_how_it_looked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = build("basicnet", ARGUMENTS)
    norm = next(each for each in model.modules() if isinstance(each, torch.nn.BatchNorm2d))
    norm.weight.data[:2], norm.bias.data[:2] = 0.0005, -1.0
    torch.save(model.state_dict(), "net.pt")
    how = ("--threshold", "0.002", "--keep", "classifier.*")
    network = ("--arch", "basicnet", "--arch-args", json.dumps(ARGUMENTS), "--input-shape", "1,16,16")
    assert slimnet_cli.run(["inspect", "net.pt", *network, *how]) == 0
    said = capsys.readouterr().out
    assert next_of(said) == ["slim", "net.pt", *network, *how, "-o", "slim/"]
    assert re.search(r"total +32 +2 +2 ", said)
    assert re.search(r"inputs of 1 × 16 × 16; if slimmed: parameters .* → .*, MACs .* → ", said)


def test_compare_names_the_method_with_the_lowest_error_at_the_largest_budget():
    def row(method, left, error, course=(), engine="slimnet"):
        budget = None if left is None else Budget("macs", left)
        return SimpleNamespace(method=method, budget=budget, error=error, course=course, engine=engine)

    tuned = (SimpleNamespace(error=0.1),)
    rows = [
        row("implicit", None, 0.0),
        row("li2017", 0.5, 0.01),
        row("fpgm", 0.75, 0.3),
        row("liu2017", 0.75, 0.9, tuned),
        row("random", 0.75, 0.0, engine="torch-pruning"),
    ]
    assert _best(SimpleNamespace(outcomes=rows)) == ["--target-macs", "0.75", "--method", "liu2017"]
    assert _best(SimpleNamespace(outcomes=rows[:1])) == []


def test_train_into_a_file_names_the_network():
    recipe = SimpleNamespace(arch="basicnet", arch_args={"in_channels": 1}, data="digits", image_size=None)
    finished = SimpleNamespace(folder=None, run=SimpleNamespace(recipe=recipe), checkpoint=Path("digits.pt"))
    words = next_of(f"next: {_next(finished)}")
    assert words[:4] == ["slim", "digits.pt", "--arch", "basicnet"]
