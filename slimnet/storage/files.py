"""Files on disk: only regular files are read, and all writes are atomic."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import TextIO

from slimnet.errors import SlimnetError
from slimnet.storage.exchange import exchange
from slimnet.storage.staging import clear, staged_file, staged_folder

LOCK = "lock"

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The errors of a disk that is full, and of limits on how much may be written."""

TEXT_LIMIT = 1 << 28
"""The largest text file that is read, in bytes; the metrics of the longest runs are a tenth of it."""

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: str | Path, limit: int | None = None) -> BufferedReader:
    """Open a regular file, or a symbolic link to one, to read its bytes. Never blocks.

    Raises:
        OSError: the system refuses it, it is a folder, a named pipe, a socket or a device, or it holds more than
            `limit` bytes; `strerror` is the reason.
    """
    # Opening some devices has effects (a tape rewinds), so the path is checked first, and the open file again.
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
        # Files in /proc have the size 0, and others may grow while they are read.
        content = file.read() if limit is None else file.read(limit + 1)
    if content is None:
        raise OSError(errno.EAGAIN, "it has no content to read now", str(path))
    if limit is not None and len(content) > limit:
        raise _too_large(path, limit)
    return content


def read_text(path: str | Path, limit: int = TEXT_LIMIT, errors: str = "strict") -> str:
    """The content of a regular file of UTF-8 text, with line endings as `\n`.

    Raises:
        OSError: as of `open_file`.
        UnicodeDecodeError: it is no UTF-8 text (`errors` as of `bytes.decode`).
    """
    return read_bytes(path, limit).decode("utf-8", errors).replace("\r\n", "\n").replace("\r", "\n")


def sha256_of(path: str | Path) -> str:
    """The SHA-256 of a regular file in hexadecimal digits.

    Raises:
        OSError: as of `open_file`.
    """
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_irregular(status: os.stat_result, path: str | Path, limit: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        code = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise OSError(code, f"it is {_kind(status)}, not a regular file", str(path))
    if limit is not None and status.st_size > limit:
        raise _too_large(path, limit)


def _kind(status: os.stat_result) -> str:
    return KINDS.get(stat.S_IFMT(status.st_mode), "something else")


def _too_large(path: str | Path, limit: int) -> OSError:
    return OSError(errno.EFBIG, f"it holds more than {limit:,} bytes", str(path))


def open_to_append(path: Path) -> TextIO:
    """Open a regular file of UTF-8 text to append lines; it is created if it does not exist. Never blocks.

    Raises:
        OSError: as of `open_file`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY, 0o666)
    try:
        _refuse_irregular(os.fstat(descriptor), path, None)
        return open(descriptor, "a", buffering=1, encoding="utf-8")
    except BaseException:
        os.close(descriptor)
        raise


@contextlib.contextmanager
def whole_file(target: Path, failure: type[SlimnetError]) -> Iterator[Path]:
    """Atomic write: yield a staging file next to `target`, and rename it to `target` if the context succeeds.

    If it fails, the staging file is removed, and an existing file at `target` is unchanged. Staging files of killed
    processes in that folder are removed.

    Raises:
        failure: one line about what the operating system refused.
    """
    with os_errors_as(target, failure):
        if target.is_dir():
            raise failure(f"cannot write {target}: it is a folder; name a file in it")
        if target.exists() and not target.is_file():
            raise failure(f"cannot write {target}: it is {_kind(target.stat())}; name a file that it may replace")
    with os_errors_as(target, failure), staged_file(target) as staging, unseen(staging, target):
        yield staging
        flush(staging)
        staging.replace(target)
        flush(target.parent)


@contextlib.contextmanager
def whole_folder(
    target: Path,
    failure: type[SlimnetError],
    *,
    replaceable: Callable[[Path], None] | None = None,
) -> Iterator[Path]:
    """Atomic write: yield a staging folder next to `target`, and rename it to `target` if the context succeeds.

    If it fails, the staging folder is removed. An empty folder at `target` is replaced, and with `replaceable` any
    folder that it does not refuse; it is called before the work, and again before the folder is replaced. Until then
    the earlier folder is unchanged. Staging folders of killed processes next to it are removed.

    Raises:
        failure: `target` exists, or the operating system refused an operation.
    """
    if replaceable is None:
        refuse_existing(target, failure)
    else:
        refuse_unreplaceable(target, failure, replaceable)
    with os_errors_as(target, failure), staged_folder(target) as staging, unseen(staging, target):
        yield staging
        for path in staging.iterdir():
            flush(path)
        flush(staging)
        if replaceable is None:
            refuse_existing(target, failure)
            staging.rename(target)
        else:
            replaceable(target)
            take_the_place_of(staging, target)
        flush(target.parent)


def refuse_unreplaceable(target: Path, failure: type[SlimnetError], replaceable: Callable[[Path], None]) -> None:
    """Refuse to replace a folder that `replaceable` refuses, or that could not be written.

    If a process was killed while it replaced the folder, the earlier one is restored first.

    Raises:
        failure: naming the obstacle.
    """
    refuse_unwritable(target, failure)
    with os_errors_as(target, failure):
        _bring_back(target)
    replaceable(target)


def take_the_place_of(new: Path, target: Path) -> None:
    """Put a finished folder in the place of an earlier one, which then has the new one's name or is removed.

    Where the system can exchange them, that is one step. Else the earlier one is restored if a rename fails.

    Raises:
        OSError: the system refuses it.
    """
    if not target.exists():
        new.rename(target)
        return
    if exchange(new, target):
        return
    target.rename(_earlier(target))
    try:
        new.rename(target)
    finally:
        _bring_back(target)


def _bring_back(target: Path) -> None:
    """Restore the earlier folder if a process was killed before the new one was renamed, otherwise remove it."""
    if not _earlier(target).is_dir():
        return
    if os.path.lexists(target):
        shutil.rmtree(_earlier(target), ignore_errors=True)
    else:
        _earlier(target).rename(target)


def _earlier(target: Path) -> Path:
    return target.with_name(f".{target.name}.earlier")


@contextlib.contextmanager
def held(folder: Path, failure: type[SlimnetError], doing: str) -> Iterator[None]:
    """Hold a folder's lock in the context; the system releases it when this process ends.

    Staging files of killed processes in the folder are removed.

    Raises:
        failure: another process holds the lock; the message says that it is `doing` this.
        SlimnetError: the operating system refused an operation.
    """
    with os_errors_as(folder / LOCK, SlimnetError):
        file = open_to_append(folder / LOCK)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise failure(f"{folder} is in use: another process is {doing} there; wait for it, or end it") from error
        clear(folder)
        yield


def in_use(folder: Path) -> bool:
    """Whether a process holds a folder's lock; False if there is no lock file.

    Raises:
        OSError: as of `open_file`.
    """
    try:
        file = open_file(folder / LOCK)
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def refuse_existing(target: Path, failure: type[SlimnetError], remedy: str = "") -> None:
    """Refuse a path that already exists; `remedy` says how a folder with something in it can be replaced.

    Raises:
        failure: naming it.
    """
    with os_errors_as(target, failure):
        if not os.path.lexists(target):
            return
        if target.is_symlink() or not target.is_dir():
            raise failure(f"cannot write {target}: a file is there; name a folder that does not exist yet")
        if any(target.iterdir()):
            other = f", or {remedy}" if remedy else ""
            raise failure(f"cannot write {target}: that folder is not empty; name one that does not exist yet{other}")
        if not target.name:
            raise failure(f"cannot write {target}: one cannot replace the folder one is in; name a new one in it")


def refuse_unwritable(target: Path, failure: type[SlimnetError]) -> None:
    """Refuse a path at which nothing could be made, before the work begins.

    Raises:
        failure: naming the obstacle.
    """
    if not target.parent.is_dir():
        raise failure(f"cannot write {target}: there is no folder {target.parent}; make it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise failure(f"cannot write {target}: {target.parent} is not writable; name another place")
    if not target.name:
        raise failure(f"cannot write {target}: one cannot replace the folder one is in; name a new one in it")


def flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def os_errors_as(target: Path, failure: type[SlimnetError]) -> Iterator[None]:
    """Report errors of the operating system in one line, with advice.

    A full disk is no misuse: the exit code is then 1, also of a `failure` that is one otherwise.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not target.parent.is_dir():
            raise failure(f"cannot write {target}: there is no folder {target.parent}; make it first") from error
        full = error.errno in FULL
        advice = "free disk space, or choose another path" if full else "choose another path"
        refused = failure(f"cannot write {target}: {error.strerror or error}; {advice}")
        refused.exit_code = SlimnetError.exit_code if full else failure.exit_code
        raise refused from error


@contextlib.contextmanager
def unseen(staging: Path, target: Path) -> Iterator[None]:
    """Report errors under the target's name, not the staging file's."""
    try:
        yield
    except SlimnetError as error:
        if staging.name not in str(error):
            raise
        named = type(error)(str(error).replace(staging.name, target.name))
        named.exit_code = error.exit_code
        raise named from error
