"""Folders of results: nothing half-written, nothing of others overwritten."""

import json
import os
from pathlib import Path

import pytest
from slimnet_cli.output.destinations import demo_folder

from slimnet.errors import SlimnetError, UsageError
from slimnet.storage import files

MAKER = "slimnet demo"


def make(target: Path, content: str, stopped_by: type[BaseException] | None = None) -> None:
    with demo_folder(target) as folder:
        (folder / "slim").mkdir()
        (folder / "slim" / "model.onnx").write_text(content)
        if stopped_by:
            raise stopped_by
        (folder / "demo.json").write_text(json.dumps({"made_by": MAKER, "recipe": {}}))


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "runs" / "demo"
    with demo_folder(target) as folder:
        (folder / "demo.json").write_text("{}")
        assert not target.exists()
        assert folder.parent == target.parent, "so that one rename puts it in its place"
    assert everything(tmp_path) == {"runs", "runs/demo", "runs/demo/demo.json"}


def test_an_earlier_one_of_ours_is_replaced(tmp_path):
    make(tmp_path / "demo", "first")
    make(tmp_path / "demo", "second")
    assert (tmp_path / "demo" / "slim" / "model.onnx").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "demo").mkdir()
    make(tmp_path / "demo", "first")
    assert (tmp_path / "demo" / "demo.json").exists()


def test_a_failure_leaves_the_earlier_one_and_nothing_else(tmp_path):
    make(tmp_path / "demo", "first")
    before = everything(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "demo", "half", stopped_by=KeyboardInterrupt)
    assert everything(tmp_path) == before
    assert (tmp_path / "demo" / "slim" / "model.onnx").read_text() == "first"


def test_a_rename_that_fails_brings_the_earlier_one_back(tmp_path, monkeypatch):
    """Where no exchange is possible. The second rename of the three puts the new folder into its place."""
    make(tmp_path / "demo", "first")
    rename, calls = Path.rename, []

    def failing(self, target):
        calls.append(self)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(SlimnetError, match="No space"):
        make(tmp_path / "demo", "second")
    assert (tmp_path / "demo" / "slim" / "model.onnx").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize(
    "strangers",
    [
        {"notes.txt": "mine"},
        {"demo.json": '{"made_by": "somebody else"}'},
        {"demo.json": "not JSON"},
        {"demo.json": "[]"},
        {"report.html": "mine"},
        {"demo.json": '{"made_by": "slimnet demo", "recipe": {}}', "notes.txt": "mine"},
    ],
    ids=["a file", "another maker", "no JSON", "a list", "no marker", "a note in ours"],
)
def test_what_others_made_is_never_replaced(tmp_path, strangers):
    folder = tmp_path / "demo"
    folder.mkdir()
    for name, content in strangers.items():
        (folder / name).write_text(content)
    with pytest.raises(UsageError, match="cannot replace"):
        make(folder, "new")
    assert {path.name: path.read_text() for path in folder.iterdir()} == strangers


def test_files_and_links_in_the_way_are_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    os.symlink(tmp_path, tmp_path / "link")
    for name in ("file", "link"):
        with pytest.raises(UsageError, match="exists and is not a folder"):
            make(tmp_path / name, "new")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_earlier_folder_comes_back_after_a_kill_between_the_renames(tmp_path, monkeypatch):
    """It is aside for a moment: what is killed in it has nothing at the target, and the next one begins by that."""
    make(tmp_path / "demo", "first")
    (tmp_path / "demo").rename(tmp_path / ".demo.earlier")
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "demo", "second", stopped_by=KeyboardInterrupt)
    assert (tmp_path / "demo" / "slim" / "model.onnx").read_text() == "first"
    assert {path.name for path in tmp_path.iterdir()} == {"demo"}


def test_an_earlier_folder_goes_after_a_kill_that_came_behind_the_renames(tmp_path):
    make(tmp_path / "demo", "second")
    (tmp_path / ".demo.earlier").mkdir()
    make(tmp_path / "demo", "third")
    assert (tmp_path / "demo" / "slim" / "model.onnx").read_text() == "third"
    assert {path.name for path in tmp_path.iterdir()} == {"demo"}
