"""Files and folders appear whole or not at all, and a refusal is one line about the place the caller named."""

import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bundles import everything, refusal

from slimnet.errors import BundleError, ExportError, SlimnetError, UsageError
from slimnet.report.rendering import write_page
from slimnet.storage.files import (
    held,
    in_use,
    refuse_existing,
    whole_file,
    whole_folder,
)
from slimnet.training.loop.checkpoint_file import write as write_checkpoint

NOBODY = 65534


def write_file(target: Path, content: str = "new", error: BaseException | None = None) -> None:
    with whole_file(target, ExportError) as file:
        file.write_text(content)
        if error:
            raise error


def write_folder(target: Path, content: str = "new", error: BaseException | None = None) -> None:
    with whole_folder(target, BundleError) as folder:
        (folder / "weights").write_text(content)
        if error:
            raise error


class StoppedWriter:
    """Stands for a method that writes to a disk which is full."""

    called = False

    def __call__(self, *_: Any, **__: Any) -> None:
        self.called = True
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


WRITERS = {"file": (write_file, ExportError), "folder": (write_folder, BundleError)}


@pytest.fixture(params=WRITERS)
def writer(request):
    return WRITERS[request.param]


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of the superuser, where the tests have them."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that may be read and not written."""
    with tempfile.TemporaryDirectory() as outer:
        os.chmod(outer, 0o755)
        folder = Path(outer) / "folder"
        folder.mkdir(mode=0o755)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_a_file_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "net.onnx"
    with whole_file(target, ExportError) as file:
        file.write_text("new")
        assert not target.exists()
        assert file.parent == tmp_path, "so that one rename puts it in its place"
    assert target.read_text() == "new"
    assert set(everything(tmp_path)) == {"net.onnx"}


def test_an_earlier_file_stays_until_the_new_one_is_complete(tmp_path):
    target = tmp_path / "net.onnx"
    target.write_text("old")
    with whole_file(target, ExportError) as file:
        file.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "slim"
    with whole_folder(target, BundleError) as folder:
        (folder / "weights").write_text("new")
        assert not target.exists()
        assert folder.parent == tmp_path
    assert set(everything(tmp_path)) == {"slim", "slim/weights"}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failure_leaves_nothing_behind(writer, error, tmp_path):
    write, kind = writer
    with pytest.raises(kind if isinstance(error, OSError) else type(error)):
        write(tmp_path / "target", error=error)
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failure_leaves_an_earlier_file_as_it_was(error, tmp_path):
    target = tmp_path / "net.onnx"
    target.write_text("old")
    before = everything(tmp_path)
    with pytest.raises(ExportError if isinstance(error, OSError) else type(error)):
        write_file(target, error=error)
    assert everything(tmp_path) == before


def test_a_full_disk_is_one_line_about_the_target(writer, tmp_path):
    write, kind = writer
    target = tmp_path / "target"
    with pytest.raises(kind) as caught:
        write(target, error=OSError(28, "No space left on device"))
    advice = "free disk space, or choose another path"
    assert str(caught.value) == f"cannot write {target}: No space left on device; {advice}"
    assert caught.value.exit_code == 1, "a full disk is no misuse"


def test_another_refusal_keeps_the_exit_code_of_its_error(writer, tmp_path):
    write, kind = writer
    with pytest.raises(kind, match="Permission denied; choose another path") as caught:
        write(tmp_path / "target", error=PermissionError(13, "Permission denied"))
    assert caught.value.exit_code == kind.exit_code


def test_a_staging_place_that_vanishes_is_one_line_about_the_target(tmp_path):
    """Somebody cleans up behind our back. The hidden name means nothing to the caller."""
    target = tmp_path / "net.onnx"

    def vanish() -> None:
        with whole_file(target, ExportError) as file:
            file.unlink()

    message = refusal(ExportError, vanish)
    assert message.startswith(f"cannot write {target}: ")
    assert everything(tmp_path) == {}


def test_a_missing_parent_is_named(writer, tmp_path):
    write, kind = writer
    message = refusal(kind, write, tmp_path / "missing" / "target")
    assert f"there is no folder {tmp_path / 'missing'}" in message
    assert everything(tmp_path) == {}


def test_a_parent_that_is_a_file_is_one_line(writer, tmp_path):
    write, kind = writer
    (tmp_path / "file").write_text("mine")
    message = refusal(kind, write, tmp_path / "file" / "target")
    assert message.startswith(f"cannot write {tmp_path / 'file' / 'target'}: ")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_name_that_is_too_long_is_one_line(writer, tmp_path):
    write, kind = writer
    assert "name too long" in refusal(kind, write, tmp_path / ("x" * 300))
    assert everything(tmp_path) == {}


def test_a_name_as_long_as_the_system_takes_can_be_written(writer, tmp_path):
    """The hidden name beside it must not be longer than the system takes."""
    write, _ = writer
    target = tmp_path / ("x" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    write(target)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_read_only_folder_is_one_line(writer, read_only):
    write, kind = writer
    with as_nobody():
        message = refusal(kind, write, read_only / "target")
    assert message.startswith(f"cannot write {read_only / 'target'}: Permission denied")
    assert everything(read_only) == {}


def test_a_folder_nobody_may_look_into_is_one_line(writer, read_only):
    write, kind = writer
    read_only.chmod(0o000)
    with as_nobody():
        message = refusal(kind, write, read_only / "target")
    assert message.startswith(f"cannot write {read_only / 'target'}: Permission denied")


def test_a_file_is_not_written_over_a_folder(tmp_path):
    (tmp_path / "net.onnx").mkdir()
    assert "is a folder" in refusal(ExportError, write_file, tmp_path / "net.onnx")
    assert everything(tmp_path) == {"net.onnx": None}


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "slim").mkdir()
    write_folder(tmp_path / "slim")
    assert set(everything(tmp_path)) == {"slim", "slim/weights"}


def test_the_folder_one_is_in_cannot_be_the_target(writer, tmp_path, monkeypatch):
    write, kind = writer
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("mine")
    refusal(kind, write, Path())
    assert set(everything(tmp_path)) == {"mine"}


def test_the_empty_folder_one_is_in_cannot_be_replaced(tmp_path, monkeypatch):
    """The shell would stay in the folder that is gone."""
    monkeypatch.chdir(tmp_path)
    assert "the folder one is in" in refusal(BundleError, write_folder, Path())
    assert everything(tmp_path) == {}


def test_a_relative_target_lands_in_the_current_folder(writer, tmp_path, monkeypatch):
    write, _ = writer
    monkeypatch.chdir(tmp_path)
    write(Path("target"))
    assert (tmp_path / "target").exists()


@pytest.mark.parametrize("there", ["file", "full folder", "link to a folder", "dangling link"])
def test_a_folder_is_not_written_over_what_is_there(there, tmp_path):
    target = tmp_path / "slim"
    if there == "file":
        target.write_text("mine")
    elif there == "full folder":
        target.mkdir()
        (target / "mine").write_text("mine")
    else:
        target.symlink_to(tmp_path / "elsewhere")
        if there == "link to a folder":
            (tmp_path / "elsewhere").mkdir()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert str(target) in refusal(BundleError, write_folder, target)
    assert str(target) in refusal(BundleError, refuse_existing, target, BundleError)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_folder_that_somebody_else_makes_meanwhile_is_left_alone(tmp_path):
    target = tmp_path / "slim"

    def overtaken() -> None:
        with whole_folder(target, BundleError) as folder:
            (folder / "weights").write_text("ours")
            target.mkdir()
            (target / "weights").write_text("theirs")

    assert "not empty" in refusal(BundleError, overtaken)
    assert (target / "weights").read_text() == "theirs"
    assert set(everything(tmp_path)) == {"slim", "slim/weights"}


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_what_is_written_may_be_read_as_the_umask_says(umask, tmp_path):
    """A staging place from `tempfile` would be closed to everyone else. Pages and checkpoints are no exception."""
    old = os.umask(umask)
    try:
        write_file(tmp_path / "file")
        write_page("page", tmp_path / "page.html")
        write_checkpoint(tmp_path / "net.pt", {}, SlimnetError)
        write_folder(tmp_path / "folder")
        with whole_folder(tmp_path / "demo", SlimnetError, replaceable=lambda _: None):
            pass
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {
        **dict.fromkeys(("file", "page.html", "net.pt"), 0o666 & ~umask),
        **dict.fromkeys(("folder", "demo"), 0o777 & ~umask),
    }


def test_a_page_that_cannot_be_written_leaves_nothing_and_the_earlier_one_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "page.html").write_text("earlier")
    monkeypatch.setattr(Path, "write_text", stopped := StoppedWriter())
    with pytest.raises(SlimnetError, match=r"cannot write .*page\.html: No space left"):
        write_page("new", tmp_path / "page.html")
    assert stopped.called
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"page.html": b"earlier"}


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    target = tmp_path / "net.onnx"
    with whole_file(target, ExportError) as first, whole_file(target, ExportError) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"
    assert set(everything(tmp_path)) == {"net.onnx"}


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """Oracle: the order of the system's calls; a crash between them loses nothing that has the name."""
    calls: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        calls.append(os.readlink(f"/proc/self/fd/{descriptor}") if os.path.exists("/proc/self/fd") else "?")
        real_fsync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        calls.append("rename")
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    write_folder(tmp_path / "slim")
    names = [re.sub(r".*/", "", call) for call in calls]
    assert names.index("weights") < names.index("rename")
    assert names[-1] == tmp_path.name


def test_a_link_that_is_written_to_becomes_a_file_and_its_target_stays(tmp_path):
    (tmp_path / "earlier").write_text("earlier")
    (tmp_path / "link").symlink_to("earlier")
    write_file(tmp_path / "link")
    assert (tmp_path / "earlier").read_text() == "earlier"
    assert (tmp_path / "link").read_text() == "new"
    assert not (tmp_path / "link").is_symlink()


def test_a_folder_that_is_held_is_in_use(tmp_path):
    """Locks of two open files exclude each other in one process as in two."""
    assert not in_use(tmp_path)
    with held(tmp_path, UsageError, "training"):
        assert in_use(tmp_path)
        with (
            pytest.raises(UsageError, match="another process is training there"),
            held(tmp_path, UsageError, "training"),
        ):
            pass
    assert not in_use(tmp_path)
    with held(tmp_path, UsageError, "training"):
        pass


def test_a_folder_whose_lock_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(SlimnetError, match=r"cannot write .*lock"), held(tmp_path, UsageError, "training"):
        pass
