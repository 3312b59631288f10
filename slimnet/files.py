"""Files on disk: only regular ones are read, and those that are written appear whole or not at all."""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from slimnet.errors import SlimnetError

LOCK = "lock"

NAME_KEPT = 40
"""How much of a target's name its hidden neighbour repeats; most systems end names at 255 bytes."""

TEXT_LIMIT = 1 << 28
"""The largest text file that is read whole, in bytes; the longest run's metrics are a tenth of it."""

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: str | Path, limit: int | None = None) -> BinaryIO:
    """Open a regular file to read its bytes; a symbolic link to one is followed. Never blocks.

    Raises:
        OSError: `strerror` says why: the system refuses it, it is a folder, a named pipe, a socket or a device,
            or it holds more than `limit` bytes.
    """
    # Opening some devices acts on them (a tape rewinds), so the path is asked first, and the open file again.
    _refuse_irregular(os.stat(str(path)), path, limit)
    descriptor = os.open(str(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _refuse_irregular(os.fstat(descriptor), path, limit)
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | Path, limit: int | None = None) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: as of `open_file`.
    """
    with open_file(path, limit) as file:
        # The files of /proc claim to be empty, and others may grow while they are read.
        content = file.read() if limit is None else file.read(limit + 1)
    if content is None:
        raise OSError(errno.EAGAIN, "it has no content to read now", str(path))
    if limit is not None and len(content) > limit:
        raise _too_large(path, limit)
    return content


def read_text(path: str | Path, limit: int = TEXT_LIMIT, errors: str = "strict") -> str:
    """The content of a regular file of UTF-8 text, every line ending as `\n`.

    Raises:
        OSError: as of `open_file`.
        UnicodeDecodeError: it is no UTF-8 text (`errors` as of `bytes.decode`).
    """
    return read_bytes(path, limit).decode("utf-8", errors).replace("\r\n", "\n").replace("\r", "\n")


def _refuse_irregular(status: os.stat_result, path: str | Path, limit: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise OSError(code, f"it is {kind}, not a regular file", str(path))
    if limit is not None and status.st_size > limit:
        raise _too_large(path, limit)


def _too_large(path: str | Path, limit: int) -> OSError:
    return OSError(errno.EFBIG, f"it holds more than {limit:,} bytes", str(path))


@contextlib.contextmanager
def whole_file(target: Path, failure: type[SlimnetError]) -> Iterator[Path]:
    """Yield a new file beside `target`, and put it in the place of `target` once everything went well.

    Whatever happens, nothing half-written stays behind; an earlier file at `target` stays until then.

    Raises:
        failure: one line about what the operating system refused.
    """
    with told(target, failure):
        if target.is_dir():
            raise failure(f"cannot write {target}: it is a folder; name a file in it")
    staging = beside(target)
    with told(target, failure), unseen(staging, target):
        try:
            staging.open("xb").close()
            yield staging
            flush(staging)
            staging.replace(target)
            flush(target.parent)
        finally:
            staging.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(target: Path, failure: type[SlimnetError]) -> Iterator[Path]:
    """Yield a new folder beside `target`, and rename it to `target` once everything went well.

    Whatever happens, nothing half-written stays behind. An empty folder at `target` is taken.

    Raises:
        failure: something is there already, or one line about what the operating system refused.
    """
    refuse_existing(target, failure)
    staging = beside(target)
    with told(target, failure), unseen(staging, target):
        try:
            staging.mkdir()
            yield staging
            for path in staging.iterdir():
                flush(path)
            flush(staging)
            refuse_existing(target, failure)
            staging.rename(target)
            flush(target.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def held(folder: Path, failure: type[SlimnetError], doing: str) -> Iterator[None]:
    """Hold a folder's lock while the context lasts; the system lets go of it whenever this process ends.

    Raises:
        failure: another process holds it, `doing` this.
    """
    with told(folder / LOCK, failure):
        file = (folder / LOCK).open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise failure(f"{folder} is in use: another process is {doing} there; wait for it, or end it") from error
        yield


def refuse_existing(target: Path, failure: type[SlimnetError]) -> None:
    """Refuse to write where something is already.

    Raises:
        failure: naming it.
    """
    with told(target, failure):
        if not os.path.lexists(target):
            return
        if target.is_symlink() or not target.is_dir():
            raise failure(f"cannot write {target}: a file is there; name a folder that does not exist yet")
        if any(target.iterdir()):
            raise failure(f"cannot write {target}: that folder is not empty; name one that does not exist yet")
        if not target.name:
            raise failure(f"cannot write {target}: one cannot replace the folder one is in; name a new one in it")


def beside(target: Path) -> Path:
    """A hidden name next to `target` that nothing has, and short enough whatever the target is called."""
    return target.with_name(f".{target.name[:NAME_KEPT]}.{secrets.token_hex(4)}.tmp")


def flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def told(target: Path, failure: type[SlimnetError]) -> Iterator[None]:
    """Say in one line what the operating system refused, and what to do about it."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not target.parent.is_dir():
            raise failure(f"cannot write {target}: there is no folder {target.parent}; make it first") from error
        raise failure(f"cannot write {target}: {error.strerror or error}; free it up or name another place") from error


@contextlib.contextmanager
def unseen(staging: Path, target: Path) -> Iterator[None]:
    """Let what is refused speak of the target, not of its hidden neighbour, which is gone by then."""
    try:
        yield
    except SlimnetError as error:
        if staging.name not in str(error):
            raise
        raise type(error)(str(error).replace(staging.name, target.name)) from error
