"""push_to_hub: a bundle written to a repository on a hub, with its model card."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimnet.bundle.bundle import save
from slimnet.bundle.manifest import FILES, MANIFEST, PROJECTIONS, read_manifest
from slimnet.bundle.model_card import model_card
from slimnet.errors import UsageError
from slimnet.hub.address import Address
from slimnet.hub.client import load_client
from slimnet.hub.files import send
from slimnet.slimmed import Slimmed
from slimnet.steps import log_result

CARD = "README.md"
"""The name of a model card in a repository."""

MESSAGE = "A slim network"
"""The message of a commit that has no other."""


def push_to_hub(
    slimmed: Slimmed | str | os.PathLike[str],
    repository: str,
    *,
    private: bool = False,
    license: str | None = None,
    card: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> str:
    """Upload a bundle to a repository of the Hugging Face Hub, in one commit; `load` takes the returned address.

    `slimmed` is the folder of a bundle, or the result of `slim`, which is saved as `save` does without options.
    `repository` is `owner/name` or `owner/name@branch`; it is created if it does not exist, `private` or public. The
    upload includes a model card (README.md): `card`, or the text of `slimnet.bundle.model_card.model_card` with the
    identifier of a `license`. An existing card is replaced, and files of an earlier bundle that this one lacks are
    removed. The hash of every file is checked before anything is sent. `message` is the commit message, `token`
    replaces the stored credentials (HF_TOKEN, or `hf auth login`). Needs the extra `hub`.

    Raises:
        BundleError: the folder is no bundle, or a file was changed.
        UsageError: huggingface_hub is not installed, the repository may not be written, or both `card` and `license`.
        HubError: the hub cannot be reached, or refuses the request.
    """
    if card is not None and license is not None:
        raise UsageError("a card of your own states its licence itself; leave license out")
    load_client()
    address = Address.parse(repository)
    with _folder_of(slimmed) as folder:
        names = [each.name for each in read_manifest(folder).files]
        text = model_card(folder, str(address), license=license) if card is None else card
        files: dict[str, Path | bytes] = {name: folder / name for name in (*names, MANIFEST)}
        # A bundle that was there before may have had more files.
        gone = [name for name in (*FILES, PROJECTIONS) if name not in files]
        files[CARD] = text.encode()
        sent = send(address, files, message=message or MESSAGE, private=private, gone=gone, token=token)
    log_result(f"bundle written to {sent}")
    return str(sent)


@contextmanager
def _folder_of(slimmed: Slimmed | str | os.PathLike[str]) -> Iterator[Path]:
    """The folder of a bundle; that of a network that was not saved is removed afterwards."""
    if not isinstance(slimmed, Slimmed):
        yield Path(slimmed)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield save(slimmed, Path(folder) / "bundle")
