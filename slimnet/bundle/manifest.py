"""The manifest of a bundle: its files with their hashes, and the versions that wrote them."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from slimnet.errors import BundleError, ChangedBundleError
from slimnet.storage.field_types import Count
from slimnet.storage.files import open_file, read_bytes
from slimnet.storage.folder_names import CERTIFICATE as CERTIFICATE
from slimnet.storage.folder_names import MANIFEST as MANIFEST
from slimnet.storage.folder_names import ONNX as ONNX
from slimnet.storage.folder_names import PLAN as PLAN
from slimnet.storage.folder_names import PROGRAM as PROGRAM
from slimnet.storage.folder_names import PROJECTIONS as PROJECTIONS
from slimnet.storage.folder_names import REMAKE, no_bundle
from slimnet.storage.folder_names import WEIGHTS as WEIGHTS
from slimnet.storage.records import LIMIT_BYTES, build, parse_json, read_json
from slimnet.version import __version__

FILES = (WEIGHTS, PLAN, PROGRAM, ONNX, CERTIFICATE)
"""The files of a bundle besides the manifest."""

WITHOUT_EXPORTS = (WEIGHTS, PLAN, CERTIFICATE)
"""Those of a network that cannot be exported, since its forward depends on data."""

FORMAT = 1
"""The version of the bundle's layout."""


@dataclass(frozen=True)
class BundleFile:
    """A file of a bundle: its name, SHA-256 (hex) and size in bytes."""

    name: str
    sha256: str
    size: Count


@dataclass(frozen=True)
class Manifest:
    """The content of a bundle; `versions` are those of slimnet, torch, onnx and Python that wrote it."""

    files: tuple[BundleFile, ...]
    source: str | None
    plan_digest: str
    versions: Mapping[str, str]

    def lists(self, name: str) -> bool:
        """Whether a file belongs to the bundle."""
        return any(each.name == name for each in self.files)


def write_manifest(folder: Path, source: str | None, plan_digest: str) -> Manifest:
    """Hash the files of a finished bundle and write `manifest.json` next to them."""
    names = [name for name in (*FILES, PROJECTIONS) if (folder / name).exists()]
    files = tuple(_hashed(folder / name) for name in names)
    manifest = Manifest(files, source, plan_digest, versions())
    (folder / MANIFEST).write_bytes(_rendered(manifest))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read a bundle's manifest and compare every file with it, byte for byte.

    Raises:
        BundleError: the folder is no bundle, a file is missing or was changed, or the manifest is invalid.
    """
    manifest = listed_files(folder)
    for recorded in manifest.files:
        try:
            found = _hashed(folder / recorded.name)
        except FileNotFoundError as error:
            raise ChangedBundleError(f"{folder} has no {recorded.name}; {REMAKE}") from error
        except OSError as error:
            raise BundleError(f"{folder / recorded.name} cannot be read ({error.strerror})") from error
        if found != recorded:
            raise ChangedBundleError(
                f"{folder / recorded.name} was changed after it was written (its SHA-256 differs from {MANIFEST}); "
                f"{REMAKE}"
            )
    return manifest


def versions() -> dict[str, str]:
    """The versions of slimnet, torch, onnx and Python."""
    import onnx
    import onnxruntime

    return {
        "slimnet": __version__,
        "torch": str(torch.__version__),
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
    }


def _hashed(path: Path) -> BundleFile:
    with open_file(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return BundleFile(path.name, digest, file.tell())


def _rendered(manifest: Manifest) -> bytes:
    """The manifest as canonical JSON with its own digest, so that any change is detected."""
    document = {"format": FORMAT, **asdict(manifest)}
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return (json.dumps(document | {"digest": digest}, sort_keys=True, indent=1) + "\n").encode()


def listed_files(folder: Path) -> Manifest:
    """Read a bundle's manifest without looking at the files that it lists.

    Raises:
        BundleError: the folder is no bundle, or the manifest is invalid.
    """
    try:
        content = read_bytes(folder / MANIFEST, LIMIT_BYTES)
    except FileNotFoundError as error:
        raise no_bundle(folder) from error
    except OSError as error:
        raise BundleError(f"{folder / MANIFEST} cannot be read ({error.strerror})") from error
    again = REMAKE
    data = parse_json(content, str(folder / MANIFEST), ChangedBundleError, again)
    if not isinstance(data, dict):
        raise ChangedBundleError(f"{folder / MANIFEST} should hold an object; {again}")
    if data.get("format") != FORMAT:
        raise BundleError(f"{folder / MANIFEST} has format {data.get('format')!r:.20}, this slimnet reads {FORMAT}")
    parts = {name: value for name, value in data.items() if name not in ("format", "digest")}
    manifest = build(Manifest, parts, str(folder / MANIFEST), ChangedBundleError, advice=again)
    # Only these names are accepted, so that no path leads out of the folder.
    names = tuple(each.name for each in manifest.files if each.name != PROJECTIONS)
    known = names in (FILES, WITHOUT_EXPORTS) and len(manifest.files) - len(names) <= 1
    if not known or _rendered(manifest) != content:
        raise ChangedBundleError(f"{folder / MANIFEST} was changed after it was written; {REMAKE}")
    return manifest


def json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file of a bundle that holds an object.

    Raises:
        BundleError: it holds no object.
    """
    data = read_json(path, BundleError, REMAKE)
    if not isinstance(data, dict):
        raise BundleError(f"{path} should hold an object, not {type(data).__name__}; {REMAKE}")
    return data
