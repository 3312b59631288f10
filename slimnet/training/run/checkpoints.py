"""The checkpoints of a run: the newest two are kept, so that one complete checkpoint always exists."""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimnet.checkpoint import unpickling
from slimnet.errors import CheckpointError, SlimnetError, reason
from slimnet.storage.files import open_file, os_errors_as
from slimnet.training.loop.checkpoint_file import write

KEPT = 2
DAMAGED = ".damaged"
"""The suffix of a checkpoint that could not be read, so that it is not read again."""


NUMBER = re.compile("[0-9]{1,18}")
"""The file name of a checkpoint, without its suffix: its iteration."""


@dataclass(frozen=True, eq=False)
class Found:
    """The newest readable checkpoint, and the newer ones that are damaged."""

    path: Path
    state: Mapping[str, Any]
    damaged: tuple[Path, ...]


def save(folder: Path, state: Mapping[str, Any]) -> Path:
    """Write the state of a run as NNNNNNNN.pt, named by its iteration; then delete all but the newest two.

    Raises:
        SlimnetError: it cannot be written; earlier checkpoints are unchanged.
    """
    path = folder / f"{state['iteration']:08d}.pt"
    write(path, state, SlimnetError)
    with os_errors_as(path, SlimnetError):
        for old in _present(folder)[KEPT:]:
            old.unlink()
    return path


def newest(folder: Path) -> Found | None:
    """Read the newest checkpoint of a run; None if it has none yet.

    A damaged checkpoint is renamed, and the one before it is read.

    Raises:
        CheckpointError: all of them are damaged.
    """
    damaged: list[Path] = []
    for path in _present(folder):
        try:
            return Found(path, read(path), tuple(damaged))
        except CheckpointError:
            damaged.append(path.rename(path.with_name(path.name + DAMAGED)))
    if damaged:
        raise CheckpointError(f"every checkpoint in {folder} is damaged; begin the run again in another folder")
    return None


def reached(folder: Path) -> int | None:
    """The iteration of the newest checkpoint by its name; None if there is none."""
    return max(numbered(folder, ".pt"), default=None)


def read(path: Path) -> Mapping[str, Any]:
    """The state of a run, its checksums verified and nothing executed.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            broken = archive.testzip() if is_stored(archive) else "a compressed part"
        if broken is None:
            content = unpickling.read(path)
            if isinstance(content, Mapping):
                return content
            problem = "it is not a checkpoint of a run"
        else:
            problem = f"the checksum of {broken} is wrong"
    except (OSError, EOFError, RuntimeError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        problem = reason(error)
    except CheckpointError as error:
        raise CheckpointError(f"{path} cannot be read: {str(error).removeprefix(str(path)).strip()}") from error
    raise CheckpointError(f"{path} cannot be read: {problem}")


def is_stored(archive: zipfile.ZipFile) -> bool:
    """Whether every entry of an archive is uncompressed, as torch writes them, so that none can expand."""
    return all(part.compress_type == zipfile.ZIP_STORED for part in archive.infolist())


def numbered(folder: Path, suffix: str) -> dict[int, Path]:
    """The files NNNNNNNN.suffix of a folder by their number, smallest first; other files are ignored."""
    paths = (path for path in folder.glob(f"*{suffix}") if NUMBER.fullmatch(path.name.removesuffix(suffix)))
    return dict(sorted((int(path.name.removesuffix(suffix)), path) for path in paths))


def _present(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    return list(reversed(numbered(folder, ".pt").values()))
