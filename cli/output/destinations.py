"""Destinations of results: checked before the work begins, and written atomically."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from slimnet.storage.written_folders import FolderKind

PAGE_MARK = b'<meta name="generator" content="slimnet '
"""By which a page of slimnet is recognised; every template of `slimnet.report` has it in its head."""

MARK_WITHIN = 1024
"""The mark is within so many bytes from the beginning of a page."""


def refuse_missing_folder(file: str) -> None:
    """Refuse a file whose folder does not exist, or that is a folder itself.

    Raises:
        click.UsageError: it cannot be written there.
    """
    path = Path(file)
    if path.is_dir():
        raise click.UsageError(f"{file} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise click.UsageError(f"cannot write {file}: there is no folder {path.parent}; make it first")


def refuse_taken_files(files: Sequence[str], *, force: bool) -> None:
    """Refuse files that are there already, unless they are to be replaced; what is no file is refused when written.

    Raises:
        click.UsageError: naming the first.
    """
    for file in files:
        if not force and Path(file).is_file():
            raise click.UsageError(f"{file} exists; name another file, or replace it with --force")


def refuse_parts_of_others(file: Path, part: Path, owners: Sequence[Path]) -> None:
    """Refuse a file whose second `part` is that of another file; not even --force replaces it.

    It is that of another one if one of the `owners` exists, which have a part of the same name, or if `file` does not.

    Raises:
        click.UsageError: naming the part.
    """
    if not part.exists():
        return
    owner = next((each for each in owners if each.exists()), None)
    if owner is not None:
        raise click.UsageError(f"{part}, which {file} needs, belongs to {owner}; name another file")
    if not file.exists():
        raise click.UsageError(
            f"{part}, which {file} needs, exists and belongs to something else; name another file, or remove it"
        )


def refuse_foreign_page(file: str | Path) -> None:
    """Refuse the path of a page where none could be written, or that holds anything but an earlier page of slimnet.

    An empty file may be replaced.

    Raises:
        click.UsageError: naming what is in the way.
    """
    refuse_missing_folder(str(file))
    if os.path.lexists(file) and not _is_page(Path(file)):
        raise click.UsageError(f"{file} exists and is no page that slimnet wrote; name another file, or remove it")


def _is_page(file: Path) -> bool:
    """Whether a path is that of a page of slimnet, or of an empty file."""
    from slimnet.storage.files import open_file

    try:
        with open_file(file) as content:
            beginning = content.read(MARK_WITHIN)
    except OSError:
        return False
    return not beginning or PAGE_MARK in beginning


@contextmanager
def demo_folder(target: Path) -> Iterator[Path]:
    """Fill a new folder next to `target`, and replace an earlier demo only when it is complete.

    Raises:
        UsageError: something else is there.
        SlimnetError: it cannot be written.
    """
    from slimnet.errors import SlimnetError, UsageError
    from slimnet.storage.written_folders import DEMO

    DEMO.refuse_foreign(target, UsageError)
    target.parent.mkdir(parents=True, exist_ok=True)
    with DEMO.whole(target, SlimnetError, overwrite=True) as staging:
        yield staging


def beside(folder: Path) -> Path:
    """The folder next to another one in which the result is made that replaces it."""
    return folder.with_name(f"{folder.name}.new")


def working_folder(out: Path, *, force: bool) -> Path:
    """The folder to work in: `out`, or the one beside it if what is there is replaced at the end."""
    return beside(out) if force and out.is_dir() and any(out.iterdir()) else out


def put_in_place(work: Path, out: Path, kind: FolderKind) -> None:
    """Replace an earlier result by the one that was made beside it, in one step where the system can.

    Raises:
        UsageError: the earlier folder holds something else by now, or the system refuses it.
    """
    from slimnet.errors import UsageError
    from slimnet.storage.files import os_errors_as, take_the_place_of

    if work == out:
        return
    kind.refuse_foreign(out, UsageError)
    with os_errors_as(out, UsageError):
        take_the_place_of(work, out)
    shutil.rmtree(work, ignore_errors=True)
