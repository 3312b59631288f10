"""slimnet compare: the table, the JSON, and what is said in one line where the request was wrong."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import slimnet_cli
import torch
from processes import LONGEST_WAIT
from slimnet_cli.commands.demo import TUNED_FOR, contest
from slimnet_cli.options.comparison import shares
from slimnet_cli.options.names import METHODS, some_of

import slimnet
from slimnet.comparison import Results
from slimnet.errors import UsageError
from slimnet.models import build
from slimnet.storage.written_folders import COMPARISON
from slimnet.training import Recipe, save_checkpoint

ARGUMENTS = {"widths": [6, 8], "pool_after": [1], "hidden": 8, "in_channels": 1}
NETWORK = ("--arch", "basicnet", "--arch-args", json.dumps(ARGUMENTS))
SHORT = ("--methods", "implicit,li2017", "--budget", "0.6", "--seconds", "0", "--threads", "1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = build("basicnet", ARGUMENTS)
    recipe = Recipe(arch="basicnet", arch_args=ARGUMENTS, data="digits", iterations=1)
    return save_checkpoint(model, tmp_path_factory.mktemp("net") / "net.pt", recipe, 0)


def run(checkpoint: Path, *arguments: object, data: str = "digits") -> int:
    return slimnet_cli.run(["compare", str(checkpoint), *NETWORK, "--data", data, *map(str, arguments)])


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on stderr, checked to be one line."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def test_for_people_it_is_one_table_that_says_how_it_was_measured(checkpoint, capsys):
    assert run(checkpoint, *SHORT, "--finetune", 4, "--tests", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["method", "channels", "removed", "MACs", "removed", "error", "fine-tuned"]
    assert [line.split("  ")[0] for line in lines[1:5]] == [
        "dense",
        "implicit, exact",
        "implicit, 0.6 of the macs",
        "li2017, 0.6 of the macs",
    ]
    assert "4 iterations of sgd at 0.001, 128 images each" in "\n".join(lines)


def test_earlier_training_and_corrections_are_noted_under_the_table(checkpoint, capsys):
    given = ("--methods", "li2017,liu2017", "--budget", "0.6", "--seconds", "0", "--threads", "1")
    assert run(checkpoint, *given, "--sparsify", 4, "--l1", "1e-3", "--plain", "--finetune", 2, "--cosine") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[2:4]] == [
        "li2017, 0.6 of the macs",
        "liu2017 after 4 iterations of L1, 0.6 of the macs",
    ]
    words = "\n".join(lines)
    assert "liu2017: with 4 iterations of L1 training before selection, λ 0.001" in words
    assert "BatchNorm statistics are not re-estimated" in words
    assert "2 iterations of sgd at 0.001 along a cosine, 128 images each" in words


def test_for_machines_it_is_json_that_the_library_reads_back(checkpoint, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert run(checkpoint, *SHORT, "--finetune", 2, "-o", tmp_path / "out", "--report", page, "--json") == 0
    assert page.read_text().startswith("<!doctype html>")
    document = json.loads(capsys.readouterr().out)
    results = Results.from_dict(document)
    assert [outcome.method for outcome in results.outcomes] == ["implicit", "implicit", "li2017"]
    assert document["network"] == "net.pt"
    assert document["images"] == 359
    for row in document["outcomes"]:
        assert set(row) == {
            *("method", "budget", "size", "error", "difference", "sparsified", "course", "latency", "seconds"),
            *("last", "best", "speedup", "macs_left", "engine", "flaw"),
        }
    assert {path.name for path in (tmp_path / "out" / "cells").iterdir()} == {
        "implicit-exact.json",
        "implicit-macs-0.6.json",
        "li2017-macs-0.6.json",
    }


def test_the_same_command_goes_on_where_it_was_and_says_so_when_conditions_differ(checkpoint, tmp_path, capsys):
    out = ("-o", tmp_path / "out")
    assert run(checkpoint, *SHORT, *out, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert run(checkpoint, *SHORT, *out, "--json") == 0
    assert json.loads(capsys.readouterr().out) == first
    assert run(checkpoint, *SHORT, *out, "--seed", 3) == 2
    assert "was begun with seed 0, not 3" in refusal(capsys)
    assert run(checkpoint, *SHORT, *out, "--finetune", 3) == 2
    assert "was begun with no finetuning, not with it: rows would not be comparable" in refusal(capsys)


def test_a_recipe_that_differs_is_named_by_its_option(checkpoint, tmp_path, capsys):
    out = (*SHORT, "-o", tmp_path / "out", "--finetune")
    assert run(checkpoint, *out, 1) == 0
    for change, words in (([2], "--finetune 1, not 2"), ([1, "--lr", "0.5"], "--lr 0.001, not 0.5")):
        capsys.readouterr()
        assert run(checkpoint, *out, *change) == 2
        assert f"was begun with {words}: rows would not be comparable; go on with the old one" in refusal(capsys)


def test_ctrl_c_leaves_what_is_done_and_says_how_to_go_on(checkpoint, tmp_path):
    """A real process that interrupts itself once its first row is finished."""
    out = tmp_path / "out"
    program = (
        "import slimnet_cli, slimnet.comparison.folder as folder\n"
        "finish = folder.Folder.finish\n"
        "def stop(*given):\n    finish(*given)\n    raise KeyboardInterrupt\n"
        "folder.Folder.finish = stop\n"
        "slimnet_cli.main()\n"
    )
    command = [sys.executable, "-c", program, "compare", checkpoint, *NETWORK, "--data", "digits", *SHORT, "-o", out]
    ended = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=LONGEST_WAIT)
    assert ended.returncode == slimnet_cli.INTERRUPTED
    assert f"the same command resumes it in {out}" in ended.stderr
    assert [path.name for path in (out / "cells").iterdir()] == ["implicit-exact.json"]
    COMPARISON.refuse_foreign(out, UsageError)


def test_a_comparison_is_replaced_by_one_under_other_conditions(checkpoint, tmp_path):
    out = ("-o", tmp_path / "out")
    assert run(checkpoint, *SHORT, *out) == 0
    COMPARISON.refuse_foreign(tmp_path / "out", UsageError)
    given = ("--methods", "implicit", "--seconds", "0", "--threads", "1", "--seed", 3)
    assert run(checkpoint, *given, *out) == 2
    assert run(checkpoint, *given, *out, "--force") == 0
    assert [path.name for path in (tmp_path / "out" / "cells").iterdir()] == ["implicit-exact.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--methods", "implicit,li2016"), "there is no method 'li2016'; did you mean li2017?"),
        (("--methods", "li2017"), "give budgets"),
        (("--methods", "li2017", "--budget", "0.0001"), "the smallest possible is 0"),
        (("--budget", "half"), "'half' is not a list of shares"),
        (("--budget", "75"), "is not a fraction"),
        (("--budget", "0.5", "--unit", "latency", "--seconds", "0"), "give seconds above 0"),
        (("--normalise", "imagenet", "--budget", "0.5"), "digits has 1 channels, and imagenet is for 3"),
        (("--normalise", "mnist", "--budget", "0.5"), "'mnist' is not one of data, imagenet, cifar10, halves, none"),
        (("--budget", "0.5", "--finetune", "3", "--lr", "-1"), "lr is -1.0"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(checkpoint, capsys, arguments, said):
    assert run(checkpoint, "--seconds", "0", "--threads", "1", *arguments) == 2
    assert said in refusal(capsys)


def test_data_with_other_classes_is_refused(tmp_path, capsys):
    torch.manual_seed(0)
    arguments = ARGUMENTS | {"num_classes": 12}
    recipe = Recipe(arch="basicnet", arch_args=arguments, data="digits", iterations=1)
    path = save_checkpoint(build("basicnet", arguments), tmp_path / "net.pt", recipe, 0)
    network = ("--arch", "basicnet", "--arch-args", json.dumps(arguments))
    assert slimnet_cli.run(["compare", str(path), *network, "--data", "digits", *SHORT]) == 2
    assert "with (1, 12), but the data has 10 classes" in refusal(capsys)


def test_without_data_it_says_so(checkpoint, capsys):
    assert slimnet_cli.run(["compare", str(checkpoint), *NETWORK, "--budget", "0.5"]) == 2
    assert "--data" in refusal(capsys)


def test_the_demo_gives_every_method_the_macs_that_are_left_without_dead_channels():
    """Oracle: the share of the MACs that the exact removal left."""
    torch.manual_seed(0)
    model = build("basicnet", ARGUMENTS).eval()
    with torch.no_grad():
        model.features.bn1.weight[:3] = 0
        model.features.bn1.bias[:3] = -1
    slimmed = slimnet.slim(model, torch.randn(2, 1, 16, 16))
    settings = contest(slimmed)
    assert [budget.left for budget in settings.budgets] == [
        slimmed.certificate.macs_after / slimmed.certificate.macs_before / part for part in (1, 2)
    ]
    assert settings.finetuning.iterations == TUNED_FOR
    assert len(settings.cells()) == 13
    assert sum(cell.engine == "torch-pruning" for cell in settings.cells()) == 4


def test_lists_are_read_once_each():
    assert some_of("method", METHODS)(None, None, "li2017, random,li2017") == ("li2017", "random")
    assert shares(None, None, "0.5,0.25,0.5") == (0.5, 0.25)


def test_the_examples_of_the_help_are_commands_that_parse(tmp_path, monkeypatch):
    from slimnet_cli.commands.compare import EXAMPLES, compare

    lines = [line.strip() for line in EXAMPLES.splitlines() if line.strip().startswith("slimnet")]
    assert len(lines) == 4
    monkeypatch.chdir(tmp_path)
    for name in {shlex.split(line)[2] for line in lines}:
        (tmp_path / name).touch()
    for line in lines:
        compare.make_context("compare", shlex.split(line)[2:])
