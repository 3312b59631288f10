"""Bundles on a hub: fetched into the cache of its client, nothing but the files that a bundle has."""

import os
from collections.abc import Mapping
from pathlib import Path

from slimnet.bundle.manifest import MANIFEST, Manifest, listed_files
from slimnet.errors import BundleError, ChangedBundleError
from slimnet.hub.address import SCHEME, Address
from slimnet.hub.files import fetch, sizes_of
from slimnet.storage.folder_names import is_bundle


def local_folder(place: str | os.PathLike[str]) -> Path:
    """The folder of a bundle: the path that `place` is, or where the bundle of an address `hf://owner/name` is cached.

    Of a repository the manifest is fetched first, then the files that it lists, of the same commit and of the sizes
    that it states. Nothing else is fetched: no code, no pickle. What they hold is not checked here.

    Raises:
        BundleError: the repository is no bundle, or its files are not those of its manifest.
        UsageError, HubError: there is no such repository, or it cannot be reached.
    """
    if not (isinstance(place, str) and place.startswith(SCHEME)):
        return Path(place)
    address = Address.parse(place)
    folder = fetch(address, [MANIFEST])
    if not is_bundle(folder):
        raise BundleError(
            f"{address} is not a bundle: it has no {MANIFEST}; name a repository that slimnet.push_to_hub wrote"
        )
    manifest = listed_files(folder)
    names = [each.name for each in manifest.files]
    if all((folder / name).exists() for name in names):
        return folder
    # The client names the folder after the commit.
    commit = address.at(folder.name)
    check_sizes(address, manifest, sizes_of(commit, names))
    return fetch(commit, [MANIFEST, *names])


def check_sizes(address: Address, manifest: Manifest, sizes: Mapping[str, int]) -> None:
    """Refuse files that are not as large as the manifest states, before they are fetched.

    Raises:
        ChangedBundleError: naming the first one.
    """
    for each in manifest.files:
        if each.name not in sizes:
            raise ChangedBundleError(f"{address} has no {each.name}; push the bundle again")
        if sizes[each.name] != each.size:
            raise ChangedBundleError(
                f"{address}: {each.name} has {sizes[each.name]:,} bytes and not the {each.size:,} of {MANIFEST}; "
                "push the bundle again"
            )
