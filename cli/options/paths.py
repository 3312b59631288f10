"""Paths on a command line. They are checked as it is parsed: the library imports torch, which takes seconds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from slimnet_cli.options.machine import launched_with_others
from slimnet_cli.output import terminal
from slimnet_cli.output.destinations import beside, refuse_foreign_page

HUB = "hf://"
"""How the address of a bundle on a hub begins."""

PathOrText = TypeVar("PathOrText", str, Path, str | None)
PathOrNone = TypeVar("PathOrNone", str, str | None)


def existing(_: click.Context, __: click.Parameter, path: PathOrText) -> PathOrText:
    """Refuse a path at which there is nothing; for the callback of an option or argument.

    Raises:
        click.UsageError: naming it.
    """
    if path is not None and not os.path.lexists(path):
        raise click.UsageError(f"{path} does not exist; check the path")
    return path


def existing_source(_: click.Context, __: click.Parameter, path: PathOrNone) -> PathOrNone:
    """Refuse what is no checkpoint, run or bundle by the look of it; a bundle on a hub is fetched. For a callback.

    Raises:
        click.UsageError: naming it.
        SlimnetError: there is no bundle at the address, or it cannot be reached.
    """
    if path is None:
        return path
    if path.startswith(HUB):
        return fetched(path)
    check_source(path)
    return path


def fetched(address: str) -> str:
    """The folder in the cache of the bundle at an address on a hub.

    Raises:
        SlimnetError: there is no bundle at the address, or it cannot be reached.
    """
    # It comes with torch; an address that is no address is refused before.
    from slimnet.hub.address import Address
    from slimnet.hub.client import load_client

    Address.parse(address)
    load_client()
    with terminal.working(f"Fetching {address}"):
        from slimnet.bundle.remote import local_folder

        return str(local_folder(address))


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
    """Refuse what is no bundle by the look of it; one on a hub is fetched.

    Raises:
        BundleError: naming it.
        SlimnetError: there is no bundle at the address, or it cannot be reached.
    """
    if path.startswith(HUB):
        return fetched(path)
    from slimnet.storage.folder_names import is_bundle, no_bundle

    if not is_bundle(Path(path)):
        raise no_bundle(Path(path))
    return path


def existing_bundle_or_file(context: click.Context, parameter: click.Parameter, path: str) -> str:
    """Refuse what is neither a bundle by the look of it nor the path of a file in int8.

    Raises:
        BundleError: naming it.
    """
    return path if is_int8_file(path) else existing_bundle(context, parameter, path)


def is_int8_file(path: str) -> bool:
    """Whether a path is by its ending that of a file as `export --int8` writes them."""
    return Path(path).suffix.lower() in (".onnx", ".xml") and os.path.isfile(path)


def existing_images(_: click.Context, __: click.Parameter, source: str | None) -> str | None:
    """Refuse a file of images that is not there; other names of data are known to the library alone.

    Raises:
        click.UsageError: naming it.
    """
    if source is not None and source.endswith(".npz") and not os.path.exists(source):
        raise click.UsageError(f"{source} does not exist; check the path of the images")
    return source


def new_page(_: click.Context, __: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file to which a page could not be written, or that holds something else; for a callback.

    Raises:
        click.UsageError: naming the obstacle.
    """
    if path is not None:
        refuse_foreign_page(path)
    return path


def page_option(*names: str, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option with these names: the file of a page, which is checked before the work; `what` begins its help."""
    return click.option(
        *names,
        type=click.Path(path_type=Path),
        metavar="FILE.html",
        callback=new_page,
        help=f"{what}; an earlier one is replaced.",
    )


FORCE = click.option(
    "--force",
    is_flag=True,
    # It is read before the folder is checked.
    is_eager=True,
    help="Replace an earlier result of slimnet at DIR once the new one is complete; never other files.",
)


def new_bundle(context: click.Context, _: click.Parameter, path: PathOrText) -> PathOrText:
    """Refuse a folder to which a bundle could not be written; with --force an earlier bundle may be there.

    Raises:
        UsageError: naming the obstacle.
    """
    from slimnet.errors import UsageError
    from slimnet.storage.written_folders import BUNDLE

    force = _forced(context, path)
    if path is not None:
        BUNDLE.refuse_occupied(Path(path), UsageError, overwrite=force)
    return path


def work_folder(kind: str) -> Callable[[click.Context, click.Parameter, PathOrText], PathOrText]:
    """A callback for the folder of resumable work, "run", "ladder" or "comparison".

    It refuses one that holds something else, and a run in place of a new one; with --force one that cannot be replaced.
    """

    def check(context: click.Context, _: click.Parameter, path: PathOrText) -> PathOrText:
        from slimnet.errors import UsageError
        from slimnet.storage.written_folders import KINDS, RUN

        # Of several processes the first one checks it, before it makes the folder.
        if path is None or str(path).endswith(".pt") or launched_with_others():
            _forced(context, path)
            return path
        folder = Path(path)
        if _forced(context, path):
            KINDS[kind].refuse_foreign(folder, UsageError)
            folder = beside(folder)
        again = f"resume it with --resume {folder}, or name another folder" if KINDS[kind] is RUN else ""
        KINDS[kind].refuse_taken(folder, UsageError, again)
        return path

    return check


def _forced(context: click.Context, path: str | Path | None) -> bool:
    force = bool(context.params.get("force"))
    if force and path is None:
        raise click.UsageError("--force replaces the folder of -o DIR; give that too")
    return force
