"""Destinations of results: checked before the work begins, and written atomically."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import click


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


@contextmanager
def whole_folder(target: Path, maker: str, names: Collection[str]) -> Iterator[Path]:
    """Fill a new folder next to `target`, and replace an earlier one only when it is complete.

    What `maker` made before is replaced; `names` are all that it makes, and the file of them that ends in
    .json says who made it.

    Raises:
        click.UsageError: something else is there.
    """
    from slimnet.errors import SlimnetError
    from slimnet.storage import files

    refuse_strangers(target, maker, names)
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.whole_folder(target, SlimnetError, replacing=True) as staging:
        yield staging


def refuse_strangers(target: Path, maker: str, names: Collection[str]) -> None:
    """Refuse to replace a folder that was not made by `maker`, or that holds other files.

    Raises:
        click.UsageError: naming what is in the way.
    """
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise click.UsageError(f"{target} exists and is not a folder; give another path with --out")
    present = sorted(path.name for path in target.iterdir())
    strange = [name for name in present if name not in names]
    if strange or (present and not _made_by(target, maker, names)):
        what = f"holds {strange[0]}, which" if strange else "is a folder that"
        raise click.UsageError(f"{target} {what} '{maker}' did not make; give another path with --out")


def _made_by(folder: Path, maker: str, names: Collection[str]) -> bool:

    from slimnet.errors import UsageError
    from slimnet.storage.records import read_json

    for name in names:
        if name.endswith(".json"):
            try:
                document = read_json(folder / name, UsageError)
            except UsageError:
                return False
            return isinstance(document, dict) and document.get("made_by") == maker
    return False
