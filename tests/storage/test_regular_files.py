"""Only regular files are read, added to and replaced, as far as a limit and as one kind of text."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from slimnet.errors import ExportError
from slimnet.storage.files import open_file, open_to_append, read_bytes, read_text, whole_file


@pytest.fixture
def irregular(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Paths that name no regular file, by what they are."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        yield {
            "a named pipe": tmp_path / "pipe",
            "a socket": tmp_path / "socket",
            "a device": tmp_path / "zeros",
            "a folder": tmp_path,
            "No such file": tmp_path / "nowhere",
            "symbolic links": tmp_path / "loop",
        }


@pytest.mark.parametrize("read", [open_file, read_bytes, read_text])
@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a device", "a folder", "No such file", "symbolic links"])
def test_only_regular_files_are_read(read, kind, irregular):
    """A pipe that nobody writes to would block for ever, and /dev/zero would fill the memory."""
    with pytest.raises(OSError, match=kind) as caught:
        read(irregular[kind])
    assert kind in caught.value.strerror
    assert caught.value.filename == str(irregular[kind])


def test_a_path_that_becomes_a_pipe_after_the_first_look_is_refused_too(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"content")
    os.mkfifo(tmp_path / "pipe")
    looked = os.stat(tmp_path / "file")
    monkeypatch.setattr(os, "stat", lambda path: looked)
    with pytest.raises(OSError, match="a named pipe"):
        open_file(tmp_path / "pipe")


def test_a_link_to_a_regular_file_is_followed(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    with open_file(tmp_path / "link", limit=7) as file:
        assert file.read() == b"content"


def test_a_file_above_the_limit_is_not_read(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert read_bytes(tmp_path / "file", 7) == b"content"
    for read in (open_file, read_bytes, read_text):
        with pytest.raises(OSError, match="more than 6 bytes"):
            read(tmp_path / "file", 6)


def test_a_file_that_claims_to_be_empty_is_read_up_to_the_limit():
    """The files of /proc have size 0 whatever they hold."""
    assert read_bytes("/proc/self/status", 1 << 20).startswith(b"Name:")
    with pytest.raises(OSError, match="more than 10 bytes"):
        read_bytes("/proc/self/status", 10)


def test_text_is_utf8_with_one_kind_of_line_ending(tmp_path):
    (tmp_path / "text").write_bytes("ä\r\nb\rc\n".encode())
    assert read_text(tmp_path / "text") == "ä\nb\nc\n" == (tmp_path / "text").read_text(encoding="utf-8")
    (tmp_path / "text").write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "text")
    assert read_text(tmp_path / "text", errors="replace") == "\ufffd"


@pytest.mark.parametrize("target", ["pipe", "zeros"])
def test_what_is_no_regular_file_is_not_replaced(target, irregular, tmp_path):
    """As root, a file put in the place of /dev/null would break the machine."""
    with (
        pytest.raises(ExportError, match=r"cannot write .*: it is a (named pipe|device); name a file"),
        whole_file(tmp_path / target, ExportError) as staging,
    ):
        staging.write_text("new")
    assert not (tmp_path / target).is_file()


@pytest.mark.parametrize("name", ["lock", "metrics.jsonl"])
def test_nothing_is_added_to_a_pipe(name, tmp_path):
    """Opening it would wait for a reader for ever."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(OSError, match="a named pipe"):
        open_to_append(tmp_path / name)


def test_what_is_added_comes_after_what_is_there(tmp_path):
    for line in ("first\n", "second\n"):
        with open_to_append(tmp_path / "log") as file:
            file.write(line)
    assert (tmp_path / "log").read_text() == "first\nsecond\n"
