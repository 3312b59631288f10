"""Wrong paths and names on the command line: one line each, before torch is imported, which takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from slimnet_cli.options import names
from slimnet_cli.options.architectures import BUILTIN

from slimnet.benchmark.runtimes.table import RUNTIMES, runtime_names
from slimnet.comparison.settings import ENGINES
from slimnet.methods.scores import SCORES
from slimnet.models.architecture import BUILTIN_ARCHITECTURES
from slimnet.planning.dead_channels import CRITERIA

COMMANDS = {
    "slim none.pt --arch resnet56 -o out": "none.pt does not exist; check the path of the checkpoint",
    "slim a.pt --arch resnet56": "give the bundle's folder with -o DIR",
    "slim a.pt -o out": "a.pt is a checkpoint; name its network with --arch, or pass --trust for a pickled module",
    "slim a.pt --arch resnet56 -o full": "cannot write full: that folder is not empty",
    "slim a.pt --arch resnet56 -o full --force": "cannot replace full: it holds notes.txt, which slimnet did not make",
    "ladder a.pt --arch resnet56 -o full": "full holds notes.txt and no ladder; name another folder",
    "ladder a.pt --arch resnet56 -o full --force": "cannot replace full: it holds notes.txt, which slimnet did not",
    "compare a.pt --arch resnet56 --data digits -o full": "full holds notes.txt and no comparison; name another folder",
    "compare a.pt --arch resnet56 --force": "--force replaces the folder of -o DIR; give that too",
    "train digits -o full": "full holds notes.txt and no run; name another folder",
    "train digits -o full --force": "cannot replace full: it holds notes.txt, which slimnet did not make",
    "train digits -o a.pt/run": "cannot write a.pt/run: a.pt is not a folder; name another place",
    "slim a.pt --arch resnet56 -o no/out": "cannot write no/out: there is no folder no; make it first",
    "slim a.pt --arch resnet56 -o out --data none.npz": "none.npz does not exist; check the path of the images",
    "slim full -o out": "full is neither a bundle (it has no manifest.json) nor the folder of a run (no recipe.json)",
    "slim a.pt --arch resnet57 -o out": "unknown architecture 'resnet57'; did you mean resnet56, torchvision:",
    "inspect a.pt --arch Xception": "unknown architecture 'Xception'; is it torchvision:Xception or timm:Xception?",
    "train digits --arch vgg17 -o out": "unknown architecture 'vgg17'; did you mean vgg1",
    "inspect none.pt --arch resnet56": "none.pt does not exist; check the path of the checkpoint",
    "analyse none": "none does not exist; check the path of the checkpoint",
    "analyse a.pt --arch resnet56 --data none.npz": "none.npz does not exist; check the path of the images",
    "ladder none.pt --arch resnet56 -o out": "none.pt does not exist; check the path of the checkpoint",
    "compare none.pt --arch resnet56 --data digits": "none.pt does not exist; check the path of the checkpoint",
    "benchmark none.pt full --arch resnet56": "none.pt does not exist; check the path of the checkpoint",
    "benchmark a.pt full --arch resnet56": "full is neither a bundle",
    "verify none": "none is not a bundle: it has no manifest.json; name a folder that slimnet slim -o made",
    "verify full": "full is not a bundle: it has no manifest.json",
    "export none -o net.onnx": "none does not exist; check the path of the checkpoint",
    "finetune none --data digits -o out": "none does not exist; check the path of the checkpoint",
    "finetune a.pt --arch resnet56 --data digits -o full": "cannot write full: that folder is not empty",
    "report none": "none does not exist; check the path",
    "sweep none.toml -o out": "none.toml does not exist; check the path",
    "train none.npz -o out": "none.npz does not exist; check the path of the images",
    "train --recipe none.json -o out": "none.json does not exist; check the path",
    "train digits --from none.pt -o out": "none.pt does not exist; check the path",
    "slim a.pt --arch resnet56 -o out --round often": "Invalid value for '--round': 'often' is not a width to round to",
    "slim a.pt --arch resnet56 -o out --criterion x": "there is no criterion 'x'; choose one (gamma, activation)",
    "inspect a.pt --arch resnet56 --criterion gama": "there is no criterion 'gama'; did you mean gamma?",
    "slim a.pt --arch resnet56 -o out --target-macs 0.5 --method li": "there is no method 'li'; ",
    "slim a.pt --arch resnet56 -o out --target-latency 0.5 --runtime onnx": "there is no runtime 'onnx'; did you mean ",
    "ladder a.pt --arch resnet56 -o out --method li2018": "there is no method 'li2018'; did you mean li2017?",
    "compare a.pt --arch resnet56 --data digits --methods implicit,li": "there is no method 'li'; ",
    "compare a.pt --arch resnet56 --data digits --engine tp": "there is no engine 'tp'; ",
    "benchmark a.pt a.pt --arch resnet56 --runtime torch,tflite": "there is no runtime 'tflite'; ",
    "report run -o run/recipe.json": "run/recipe.json exists and is no page that slimnet wrote; name another file, or",
    "report speed.json -o a.pt": "a.pt exists and is no page that slimnet wrote; name another file, or remove it",
    "report speed.json": "speed.html exists and is no page that slimnet wrote; name another file, or remove it",
    "benchmark a.pt a.pt --arch resnet56 --report a.pt": "a.pt exists and is no page that slimnet wrote",
    "benchmark a.pt a.pt --arch resnet56 --report no/a.html": "cannot write no/a.html: there is no folder no; make it",
    "census a.pt -o a.pt": "a.pt exists and is no page that slimnet wrote; name another file, or remove it",
    "census a.pt -o no/a.html": "cannot write no/a.html: there is no folder no; make it first",
    "analyse run --report run/recipe.json": "run/recipe.json exists and is no page that slimnet wrote",
    "analyse run --report no/a.html": "cannot write no/a.html: there is no folder no; make it first",
    "compare a.pt --arch resnet56 --data digits --report a.pt": "a.pt exists and is no page that slimnet wrote",
    "compare a.pt --arch resnet56 --data digits --report full": "full is a folder; name a file in it",
    "sweep speed.json -o run": "run holds recipe.json and no sweep; name another folder",
    "sweep speed.json -o a.pt": "cannot write a.pt: a.pt is not a folder; name another place",
    "sweep speed.json -o a.pt/runs": "cannot write a.pt/runs: a.pt is not a folder; name another place",
    "reproduce table1 -o run": "run holds a run; name another folder",
    "reproduce table1 -o paper": "paper/report.html exists and is no page that slimnet wrote",
    "train --resume none": "none does not exist; check the path",
}


def test_the_names_are_those_of_the_library():
    assert set(BUILTIN) == set(BUILTIN_ARCHITECTURES)
    assert set(names.METHODS) == set(SCORES)
    assert names.ENGINES == ENGINES
    assert set(names.CRITERIA) == set(CRITERIA)
    assert runtime_names() == names.RUNTIMES
    assert tuple(each.name for each in RUNTIMES if not each.is_variant) == names.DEPLOYABLE


EACH_IN_TURN = """
import contextlib, io, json, sys
import slimnet_cli

found = {}
for line in json.load(sys.stdin):
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown):
        code = slimnet_cli.run(line.split())
    found[line] = [code, shown.getvalue(), "torch" in sys.modules]
json.dump(found, sys.stdout)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The exit code, the message, and whether torch was imported, for each command in turn in one process."""
    folder = tmp_path_factory.mktemp("paths")
    (folder / "a.pt").write_bytes(b"weights")
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")
    for name in ("run", "paper"):
        (folder / name).mkdir()
    (folder / "run" / "recipe.json").write_text("{}")
    for page in ("speed.html", "paper/report.html"):
        (folder / page).write_text("mine")
    (folder / "speed.json").write_text("{}")
    before = contents(folder)
    command = [sys.executable, "-c", EACH_IN_TURN]
    run = subprocess.run(command, cwd=folder, input=json.dumps(list(COMMANDS)), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert contents(folder) == before
    return json.loads(run.stdout)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_wrong_path_is_reported_before_torch_is_imported(answers, line):
    code, shown, imported = answers[line]
    assert code == 2
    assert shown.startswith(f"error: {COMMANDS[line]}")
    assert shown.count("\n") == 1
    assert not imported
