"""Paths on a command line. They are checked as it is parsed: the library imports torch, which takes seconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import click

PathOrText = TypeVar("PathOrText", str, Path, str | None)


def existing(_: click.Context, __: click.Parameter, path: PathOrText) -> PathOrText:
    """Refuse a path at which there is nothing; for the callback of an option or argument.

    Raises:
        click.UsageError: naming it.
    """
    if path is not None and not os.path.lexists(path):
        raise click.UsageError(f"{path} does not exist; check the path")
    return path


def existing_source(_: click.Context, __: click.Parameter, path: str) -> str:
    """Refuse what is no checkpoint, run or bundle by the look of it; for a callback.

    Raises:
        click.UsageError: naming it.
    """
    check_source(path)
    return path


def check_source(path: str) -> None:
    """Refuse what is no checkpoint, run or bundle by the look of it.

    Raises:
        click.UsageError: naming it.
    """
    from slimnet.storage.folder_names import MANIFEST, RECIPE, is_bundle, is_run

    place = Path(path)
    if not os.path.lexists(place):
        raise click.UsageError(f"{path} does not exist; check the path of the checkpoint")
    if place.is_dir() and not is_bundle(place) and not is_run(place):
        raise click.UsageError(
            f"{path} is neither a bundle (it has no {MANIFEST}) nor the folder of a run (no {RECIPE}); name one of "
            "them, or a checkpoint"
        )


def existing_bundle(_: click.Context, __: click.Parameter, path: str) -> str:
    """Refuse what is no bundle by the look of it.

    Raises:
        BundleError: naming it.
    """
    from slimnet.storage.folder_names import is_bundle, no_bundle

    if not is_bundle(Path(path)):
        raise no_bundle(Path(path))
    return path


def existing_images(_: click.Context, __: click.Parameter, source: str | None) -> str | None:
    """Refuse a file of images that is not there; other names of data are known to the library alone.

    Raises:
        click.UsageError: naming it.
    """
    if source is not None and source.endswith(".npz") and not os.path.exists(source):
        raise click.UsageError(f"{source} does not exist; check the path of the images")
    return source


def new_folder(_: click.Context, __: click.Parameter, path: PathOrText) -> PathOrText:
    """Refuse a folder that exists, or that cannot be made.

    Raises:
        UsageError: naming the obstacle.
    """
    from slimnet.errors import UsageError
    from slimnet.storage.files import check_free

    if path is not None:
        check_free(Path(path), UsageError)
    return path
