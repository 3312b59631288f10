"""Exchange of two folders in one step, so that at no time one of them is missing."""

import ctypes
import errno
import os
from pathlib import Path

AT_CURRENT_FOLDER, RENAME_EXCHANGE = -100, 2
"""Constants of Linux: paths are relative to the current folder; the two names are exchanged."""

UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
"""The errors of a kernel or file system that cannot exchange names."""


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders of one file system; False if this system cannot, and then nothing was changed.

    Raises:
        OSError: the system refuses it.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if rename(AT_CURRENT_FOLDER, names[0], AT_CURRENT_FOLDER, names[1], RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(other))
