"""Staging: a file or folder that is being written has a hidden name next to its target, and a lock.

The lock ends with its process, so that the next process that writes in that folder can recognise abandoned staging,
also if process numbers are reused. Locks are reliable on one machine only; therefore the name identifies the machine
and its boot. Staging from an earlier boot of this machine is removed too; that of other machines is not.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
"""The random boot identifier of Linux: containers of one machine share it, and their locks too."""

HOST = Path("/etc/machine-id")
"""The identifier of an installed system, which does not change at boot."""

NAME_KEPT = 40
"""The characters of a target's name in the name of its staging; most systems limit names to 255 bytes."""

NAME = re.compile(r"\..*\.([0-9a-f]{8})([0-9a-f]{8})?\.[0-9a-f]{8}\.tmp", re.DOTALL)


@contextlib.contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Yield a new, empty, locked file next to `target`; it is removed afterwards unless it was renamed.

    Raises:
        OSError: the system refuses it.
    """
    clear(target.parent)
    while True:
        path = staging_path(target)
        # Permissions according to the umask, unlike the files of `tempfile`.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if _hold(descriptor, path):
            break
        os.close(descriptor)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield a new, empty, locked folder next to `target`; it is removed afterwards unless it was renamed.

    Raises:
        OSError: the system refuses it.
    """
    clear(target.parent)
    while True:
        path = staging_path(target)
        path.mkdir()
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            # Another process removed it as abandoned before it was locked.
            continue
        if _hold(descriptor, path):
            break
        os.close(descriptor)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def clear(folder: Path) -> None:
    """Remove abandoned staging of this machine from a folder; failures to remove are ignored."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries]:
            match = NAME.fullmatch(name)
            if match is not None and (match[1] == machine() or (match[2] is not None and match[2] == host())):
                _remove_unheld(folder / name)


def is_staging(name: str) -> bool:
    """Whether a name is that of staging, of any machine."""
    return NAME.fullmatch(name) is not None


def staging_path(target: Path) -> Path:
    """A new hidden name next to `target`, short enough for any name of the target."""
    return target.with_name(f".{target.name[:NAME_KEPT]}.{machine()}{host()}.{secrets.token_hex(4)}.tmp")


@functools.cache
def machine() -> str:
    """Eight hexadecimal digits that identify this machine since its last boot."""
    try:
        known = BOOT.read_text(encoding="ascii")
    except (OSError, ValueError):
        known = f"{platform.node()} {uuid.getnode()}"
    return hashlib.sha256(known.encode()).hexdigest()[:8]


@functools.cache
def host() -> str:
    """Eight hexadecimal digits that identify this machine across boots; empty if it has no identifier.

    The host name is included, since machines created from one image may have the same identifier.
    """
    try:
        known = HOST.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        known = ""
    return hashlib.sha256(f"{known} {platform.node()}".encode()).hexdigest()[:8] if known else ""


def _hold(descriptor: int, path: Path) -> bool:
    """Lock new staging until this process ends; False if another process has removed it meanwhile."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        # A file system without locks: other processes cannot lock it either, so they never regard it as abandoned.
        return True
    return _is_at(path, descriptor)


def _remove_unheld(path: Path) -> None:
    """Remove staging that no process has locked."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(OSError))
        is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
        # On NFS only files that are open for writing can be locked.
        mode = os.O_RDONLY if is_folder else os.O_RDWR
        descriptor = os.open(path, mode | os.O_NOFOLLOW | os.O_NONBLOCK)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It may have been renamed since; then this lock is on the finished file.
        if _is_at(path, descriptor):
            shutil.rmtree(path) if is_folder else path.unlink()


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether a path still refers to the opened file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
