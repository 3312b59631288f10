"""Staging: what is being written has a hidden name beside its target, and a lock, until it takes its place.

A process that is killed leaves its staging behind, and the lock ends with the process, so that whoever writes in that
folder next can tell what is left behind from what is in use, whichever process has the number by now. A lock is sure
on one machine only. So the name says which machine staging is of and since when that machine runs. What one left
before it started again is removed as well; that of other machines stays.
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
"""A random number that Linux draws when it starts: containers of one machine share it, and their locks as well."""

HOST = Path("/etc/machine-id")
"""What an installed system has for itself, however often it starts."""

NAME_KEPT = 40
"""How much of a target's name its staging repeats; most systems end names at 255 bytes."""

NAME = re.compile(r"\..*\.([0-9a-f]{8})([0-9a-f]{8})?\.[0-9a-f]{8}\.tmp", re.DOTALL)


@contextlib.contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Yield a new, empty file beside `target` with a lock on it; it is removed unless it has another name by then.

    Raises:
        OSError: the system refuses it.
    """
    clear(target.parent)
    while True:
        path = staging_path(target)
        # As the umask says, unlike the files of `tempfile`.
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
    """Yield a new, empty folder beside `target` with a lock on it; it is removed unless it has another name by then.

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
            # Another process has taken it for left behind, before it had its lock.
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
    """Remove the staging in a folder that processes of this machine have left behind; what cannot be removed stays."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries]:
            match = NAME.fullmatch(name)
            if match is not None and (match[1] == machine() or (match[2] is not None and match[2] == host())):
                _remove_unheld(folder / name)


def is_staging(name: str) -> bool:
    """Whether a file is called as staging is, of whichever machine."""
    return NAME.fullmatch(name) is not None


def staging_path(target: Path) -> Path:
    """A hidden name next to `target` that nothing has, and short enough whatever the target is called."""
    return target.with_name(f".{target.name[:NAME_KEPT]}.{machine()}{host()}.{secrets.token_hex(4)}.tmp")


@functools.cache
def machine() -> str:
    """Eight hexadecimal digits for this machine, which change when it starts again."""
    try:
        known = BOOT.read_text(encoding="ascii")
    except (OSError, ValueError):
        known = f"{platform.node()} {uuid.getnode()}"
    return hashlib.sha256(known.encode()).hexdigest()[:8]


@functools.cache
def host() -> str:
    """Eight hexadecimal digits for this machine, which stay when it starts again; empty where it has no identity.

    Machines made from one image may share the identity, and then have names of their own.
    """
    try:
        known = HOST.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        known = ""
    return hashlib.sha256(f"{known} {platform.node()}".encode()).hexdigest()[:8] if known else ""


def _hold(descriptor: int, path: Path) -> bool:
    """Lock new staging for as long as this process lives; False where another one removed it meanwhile."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        # A file system without locks: nobody else can lock it either, so it is never taken for left behind.
        return True
    return _is_at(path, descriptor)


def _remove_unheld(path: Path) -> None:
    """Remove staging that no process has a lock on."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(OSError))
        is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
        # Over NFS only what is open for writing can be locked.
        mode = os.O_RDONLY if is_folder else os.O_RDWR
        descriptor = os.open(path, mode | os.O_NOFOLLOW | os.O_NONBLOCK)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It may have been given its place since, in which case this lock is on the finished file.
        if _is_at(path, descriptor):
            shutil.rmtree(path) if is_folder else path.unlink()


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether a path still names what was opened."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
