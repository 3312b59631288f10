"""--force replaces an earlier result when the new one is complete; slim, train, compare and finetune have it alike."""

import json
import shutil

import pytest
import slimnet_cli
import torch
from bundles import everything
from command_line import SHORT, recipe_of, run
from slimnet_cli.output.destinations import beside, put_in_place, working_folder

from slimnet.bundle.bundle import load, save
from slimnet.errors import BundleError, UsageError
from slimnet.methods.iterative_pruning import Ladder
from slimnet.models import build
from slimnet.storage.written_folders import LADDER, RUN

ARGUMENTS = {"widths": [6, 8], "pool_after": [1], "hidden": 8, "in_channels": 1}
NETWORK = ("--arch", "basicnet", "--arch-args", json.dumps(ARGUMENTS), "--input-shape", "1,16,16")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "net.pt"
    torch.save(build("basicnet", ARGUMENTS).state_dict(), path)
    return str(path)


def slim(checkpoint: str, *arguments: object) -> int:
    return slimnet_cli.run(["slim", checkpoint, *NETWORK, *map(str, arguments)])


def test_slim_replaces_a_bundle_only_if_asked(basic, copy, checkpoint, capsys):
    """Oracle: the widths of the network in the folder."""
    out = copy(basic)
    before = everything(out)
    assert slim(checkpoint, "-o", out) == 2
    advice = "name one that does not exist yet, or replace the bundle with --force"
    assert capsys.readouterr().err == f"error: cannot write {out}: that folder is not empty; {advice}\n"
    assert everything(out) == before
    assert slim(checkpoint, "-o", out, "--force") == 0
    assert load(out).state_dict()["features.conv1.weight"].shape[:2] == (6, 1)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_slim_that_fails_leaves_the_earlier_bundle(basic, copy, checkpoint, monkeypatch, capsys):
    out = copy(basic)
    before = everything(out)
    monkeypatch.setattr("slimnet.bundle.bundle.write_exports", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    assert slim(checkpoint, "-o", out, "--force") == 1, "a full disk is no misuse"
    assert "full; free disk space" in capsys.readouterr().err
    assert everything(out) == before
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_the_library_replaces_a_bundle_only_if_asked(basic, copy):
    out = copy(basic)
    with pytest.raises(BundleError, match="or replace the bundle with overwrite=True"):
        save(basic.slimmed, out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="it holds notes"):
        save(basic.slimmed, out, overwrite=True)
    (out / "notes.txt").unlink()
    (out / "plan.json").write_text("damaged")
    assert save(basic.slimmed, out, overwrite=True, source="again") == out
    assert json.loads((out / "manifest.json").read_text())["source"] == "again"


def test_a_run_is_replaced_at_its_end(begun, capsys, monkeypatch):
    """Interrupted, the earlier run is as it was, and the new one is beside it. Oracle: the recipes."""
    arguments = ("digits", *SHORT, "--iterations", 20, "--seed", 1, "-o", begun, "--force")
    RUN.refuse_foreign(begun, UsageError)
    before = everything(begun)
    with monkeypatch.context() as patch:
        patch.setattr("slimnet_cli.progress.training_run.accuracy_of", interrupted)
        assert run(*arguments) == 130
    assert everything(begun) == before
    assert recipe_of(beside(begun)).seed == 1
    capsys.readouterr()
    assert run(*arguments) == 2
    assert "already holds a run; resume it with --resume" in capsys.readouterr().err
    shutil.rmtree(beside(begun))
    assert run(*arguments, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["checkpoint"] == str(begun / "model.pt")
    assert (recipe_of(begun).seed, recipe_of(begun).iterations) == (1, 20)
    assert [path.name for path in begun.parent.iterdir()] == [begun.name]


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_run_with_notes_in_it_is_not_replaced(begun, capsys):
    (begun / "notes.txt").write_text("mine")
    assert run("digits", *SHORT, "-o", begun, "--force") == 2
    assert "it holds notes.txt, which slimnet did not make as part of a run; move it" in capsys.readouterr().err


def test_work_is_done_beside_what_is_replaced_and_in_place_otherwise(tmp_path):
    out = tmp_path / "out"
    assert working_folder(out, force=True) == out
    out.mkdir()
    assert working_folder(out, force=True) == out
    (out / "ladder.json").write_text('{"made_by": "slimnet ladder", "conditions": {}, "rungs": []}')
    assert working_folder(out, force=False) == out
    work = working_folder(out, force=True)
    assert work == tmp_path / "out.new"
    work.mkdir()
    (work / "ladder.html").write_text("new")
    put_in_place(work, out, LADDER)
    assert [path.name for path in out.iterdir()] == ["ladder.html"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_ladder_is_replaced(checkpoint, tmp_path, monkeypatch):
    """Oracle: the file that only the first one could have left. There are no rungs, so no next command is shown."""
    arguments = ["ladder", checkpoint, *NETWORK, "--steps", "0.999", "--json", "-o", str(tmp_path / "rungs")]
    dense = Ladder.dense
    monkeypatch.setattr(Ladder, "rung", lambda self, kept, name, choose: dense(self))
    assert slimnet_cli.run(arguments) == 0
    LADDER.refuse_foreign(tmp_path / "rungs", UsageError)
    earlier = tmp_path / "rungs" / "macs-0.5" / "plan.json"
    earlier.parent.mkdir()
    earlier.write_text("of an earlier ladder")
    assert slimnet_cli.run(arguments) == 0
    assert earlier.exists()
    assert slimnet_cli.run([*arguments, "--force"]) == 0
    assert sorted(path.name for path in (tmp_path / "rungs").iterdir()) == ["ladder.html", "ladder.json", "lock"]
    assert [path.name for path in tmp_path.iterdir()] == ["rungs"]


@pytest.mark.parametrize(
    "line", ["slim net.pt --arch basicnet --dry-run", "compare net.pt --arch basicnet", "train --resume run"]
)
def test_force_needs_a_folder_to_replace(line, tmp_path, monkeypatch, capsys):
    (tmp_path / "net.pt").touch()
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    assert slimnet_cli.run([*line.split(), "--force"]) == 2
    assert "--force replaces the folder of -o DIR; give that too" in capsys.readouterr().err
