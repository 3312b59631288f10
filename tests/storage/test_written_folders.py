"""An earlier result is replaced in one step, and only if slimnet wrote all of it; a kill leaves one that is whole."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import everything

from slimnet.errors import BundleError, UsageError
from slimnet.storage import files
from slimnet.storage.exchange import exchange
from slimnet.storage.files import held
from slimnet.storage.written_folders import BUNDLE, KINDS, RUN

MANIFEST = json.dumps({"files": [], "plan_digest": "0"})


def bundle(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(MANIFEST)
    (folder / "plan.json").write_text(content)
    return folder


def replace(target: Path, content: str) -> None:
    with BUNDLE.whole(target, BundleError, overwrite=True) as staging:
        (staging / "manifest.json").write_text(MANIFEST)
        (staging / "plan.json").write_text(content)
        if (target / "plan.json").exists():
            assert (target / "plan.json").read_text() == "old", "it stays until the new one is whole"


@pytest.fixture(params=[True, False], ids=["in one step", "in two renames"])
def exchanging(request, monkeypatch):
    """Systems that can exchange two names, and those that cannot."""
    if not request.param:
        monkeypatch.setattr(files, "exchange", lambda one, other: False)


@pytest.mark.usefixtures("exchanging")
@pytest.mark.parametrize("earlier", ["a bundle", "an empty folder", "nothing"])
def test_an_earlier_bundle_is_replaced(earlier, tmp_path):
    target = tmp_path / "slim"
    if earlier == "a bundle":
        bundle(target, "old")
    elif earlier == "an empty folder":
        target.mkdir()
    replace(target, "new")
    assert (target / "plan.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["slim"]


@pytest.mark.usefixtures("exchanging")
def test_a_failure_leaves_the_earlier_one(tmp_path):
    bundle(tmp_path / "slim", "old")
    with pytest.raises(BundleError, match="No space"), BUNDLE.whole(tmp_path / "slim", BundleError, overwrite=True):
        raise OSError(28, "No space left on device")
    assert (tmp_path / "slim" / "plan.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["slim"]


KILLED = """
import os, signal, sys
from pathlib import Path
from slimnet.errors import BundleError
from slimnet.storage import files
from slimnet.storage.written_folders import BUNDLE

moment, target = sys.argv[1], Path(sys.argv[2])
end = lambda: os.kill(os.getpid(), signal.SIGKILL)
exchange = files.exchange


def exchanged(one, other):
    if moment == "before":
        end()
    exchange(one, other)
    end()


files.exchange = exchanged
with BUNDLE.whole(target, BundleError, overwrite=True) as staging:
    (staging / "manifest.json").write_text('{"files": [], "plan_digest": "0"}')
    if moment == "writing":
        end()
    (staging / "plan.json").write_text("new")
"""


@pytest.mark.parametrize(("moment", "left"), [("writing", "old"), ("before", "old"), ("after", "new")])
def test_a_kill_leaves_one_of_the_two_and_the_next_write_clears_up(moment, left, tmp_path):
    target = bundle(tmp_path / "slim", "old")
    if not exchange(bundle(tmp_path / "one", "1"), bundle(tmp_path / "other", "2")):
        pytest.skip("this file system cannot exchange two names")
    for name in ("one", "other"):
        BUNDLE.refuse_foreign(tmp_path / name, UsageError)
    run = subprocess.run([sys.executable, "-c", KILLED, moment, str(target)], cwd=Path(__file__).parents[2])
    assert run.returncode == -signal.SIGKILL
    assert {path.name: path.read_text() for path in target.iterdir()} == {"manifest.json": MANIFEST, "plan.json": left}
    assert len(list(tmp_path.iterdir())) == 4, "the other one is hidden beside it"
    with BUNDLE.whole(target, BundleError, overwrite=True) as staging:
        (staging / "plan.json").write_text("next")
    assert {path.name: path.read_text() for path in target.iterdir()} == {"plan.json": "next"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other", "slim"]


MARKS = {
    "bundle": {"manifest.json": MANIFEST},
    "run": {"recipe.json": json.dumps({"arch": "a", "data": "d", "iterations": 1})},
    "ladder": {"ladder.json": json.dumps({"made_by": "slimnet ladder", "conditions": {}, "rungs": []})},
    "comparison": {"comparison.json": json.dumps({"conditions": {}, "environment": {}})},
    "demo": {"demo.json": json.dumps({"made_by": "slimnet demo", "recipe": {}})},
}
STRANGERS = {
    "a note": {"notes.txt": "mine"},
    "a hidden file": {".gitignore": "mine"},
    "a note in a folder": {"history/notes.txt": "mine"},
    "a folder": {"photos/cat.jpg": "mine"},
    "a note beside a network": {"slim/notes.txt": "mine", "exact/notes.txt": "mine", "dense/notes.txt": "mine"},
}


def filled(folder: Path, content: dict[str, str]) -> Path:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_folder_with_anything_of_others_in_it_is_never_replaced(kind, stranger, tmp_path):
    """Each folder is accepted without the stranger, so that this is what is refused."""
    folder = filled(tmp_path / "out", MARKS[kind.name])
    kind.refuse_foreign(folder, UsageError)
    before = everything(filled(folder, STRANGERS[stranger]))
    name = min(STRANGERS[stranger])
    refused = pytest.raises(UsageError, match=f"cannot replace .*out: it holds {name}, which slimnet did not make")
    with refused, kind.whole(folder, UsageError, overwrite=True):
        pytest.fail("the work begins")
    assert everything(folder) == before


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
@pytest.mark.parametrize("content", [None, "not JSON", "[]", "{}", '{"name": "an app", "version": 2}'])
def test_a_folder_of_another_program_is_never_replaced(kind, content, tmp_path):
    """Manifests and reports have these names elsewhere as well."""
    others = next(name for name in kind.files if "*" not in name and name != kind.mark)
    folder = filled(tmp_path / "out", {others: "theirs"} | ({} if content is None else {kind.mark: content}))
    with pytest.raises(UsageError, match=f"it has no {kind.mark} of a {kind.name} that slimnet made"):
        kind.refuse_foreign(folder, UsageError)


def test_files_links_and_folders_in_use_are_never_replaced(tmp_path):
    (tmp_path / "file").write_text("mine")
    os.symlink(bundle(tmp_path / "slim", "old"), tmp_path / "link")
    for name in ("file", "link"):
        with pytest.raises(UsageError, match=f"cannot replace .*{name}: it exists and is not a folder"):
            BUNDLE.refuse_foreign(tmp_path / name, UsageError)
    os.symlink("/etc/hostname", tmp_path / "slim" / "model.onnx")
    BUNDLE.refuse_foreign(tmp_path / "slim", UsageError)
    run = filled(tmp_path / "run", MARKS["run"])
    with held(run, UsageError, "training"), pytest.raises(UsageError, match="another process is at work there"):
        RUN.refuse_foreign(run, UsageError)


def test_what_came_into_the_folder_meanwhile_stays(tmp_path):
    target = bundle(tmp_path / "slim", "old")
    with pytest.raises(UsageError, match="it holds notes"), BUNDLE.whole(target, UsageError, overwrite=True):
        (target / "notes.txt").write_text("mine")
    assert (target / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["slim"]


def test_an_earlier_bundle_stays_unless_one_asks(tmp_path):
    """A folder of others gets no advice to overwrite it."""
    bundle(tmp_path / "slim", "old")
    filled(tmp_path / "photos", {"cat.jpg": "mine"})
    with pytest.raises(BundleError, match=r"or replace the bundle with overwrite=True$"):
        BUNDLE.refuse_occupied(tmp_path / "slim", BundleError, overwrite=False)
    with pytest.raises(BundleError, match=r"name one that does not exist yet$"):
        BUNDLE.refuse_occupied(tmp_path / "photos", BundleError, overwrite=False)
