"""Files of a repository on a hub: fetched into the client's cache, and sent in one commit."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from slimnet.hub.address import Address
from slimnet.hub.client import hub_for, load_client


def fetch(address: Address, names: Sequence[str]) -> Path:
    """The folder in the client's cache with these files of a repository, as far as it has them, and no others.

    What the cache has is not fetched again. Where the hub cannot be reached, that is all there is.

    Raises:
        UsageError, HubError: as `hub_for`.
    """
    with hub_for(address) as hub:
        return Path(hub.snapshot_download(address.repository, revision=address.revision, allow_patterns=list(names)))


def sizes_of(address: Address, names: Sequence[str]) -> dict[str, int]:
    """The sizes in bytes of these files of a repository, by name, before they are fetched.

    Raises:
        UsageError, HubError: as `hub_for`.
    """
    with hub_for(address) as hub:
        found = hub.get_paths_info(address.repository, list(names), revision=address.revision)
    # A folder has no size.
    return {each.path: getattr(each, "size", -1) for each in found}


def send(
    address: Address,
    files: Mapping[str, Path | bytes],
    *,
    message: str,
    private: bool,
    gone: Iterable[str] = (),
    token: str | None = None,
) -> Address:
    """Write files to a repository in one commit, which the address returned names; both are made if they are missing.

    `gone` are files that are removed in the same commit if the repository has them.

    Raises:
        UsageError, HubError: as `hub_for`.
    """
    client = load_client()
    with hub_for(address, token) as hub:
        hub.create_repo(address.repository, private=private, exist_ok=True)
        if address.revision is not None:
            hub.create_branch(address.repository, branch=address.revision, exist_ok=True)
        operations = [
            client.CommitOperationAdd(
                path_in_repo=name, path_or_fileobj=content if isinstance(content, bytes) else str(content)
            )
            for name, content in files.items()
        ]
        operations += [
            client.CommitOperationDelete(path_in_repo=name)
            for name in gone
            if hub.file_exists(address.repository, name, revision=address.revision)
        ]
        commit = hub.create_commit(address.repository, operations, commit_message=message, revision=address.revision)
    return address.at(commit.oid)
