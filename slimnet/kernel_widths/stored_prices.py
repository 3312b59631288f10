"""Prices of widths on disk: one file for each runtime, its version, a number of threads and a kind of processor."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from slimnet.benchmark.environment import processor
from slimnet.benchmark.runtimes.runtime import Runtime
from slimnet.errors import SlimnetError
from slimnet.planning.width_prices import WidthPrices
from slimnet.storage.field_types import Size
from slimnet.storage.files import whole_file
from slimnet.storage.records import read_record

VERSION = 2
"""The version of how prices are measured; others are measured again."""

FOLDER = "kernel-widths"
AGAIN = "kernels are measured again"

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Key:
    """What prices hold for."""

    runtime: str
    versions: Mapping[str, str]
    threads: Size
    processor: str
    instructions: str
    version: Size

    @classmethod
    def here(cls, runtime: Runtime, threads: int) -> "Key":
        """The key on this machine."""
        instructions = torch.backends.cpu.get_cpu_capability()
        return cls(runtime.name, dict(runtime.versions()), threads, processor(), instructions, VERSION)

    @property
    def file(self) -> str:
        """The name of its file."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.runtime}-{digest[:16]}.json"


@dataclass(frozen=True)
class StoredPrices:
    """The content of a file; `measured` is when, in UTC."""

    key: Key
    prices: WidthPrices
    measured: str


def cache_folder() -> Path | None:
    """The folder of everything that slimnet stores for a user; None if there is no home folder.

    It is `$SLIMNET_CACHE`, or `slimnet` in `$XDG_CACHE_HOME`, or `~/.cache/slimnet`.
    """
    if own := os.environ.get("SLIMNET_CACHE"):
        return Path(own)
    if (shared := os.environ.get("XDG_CACHE_HOME")) and Path(shared).is_absolute():
        return Path(shared) / "slimnet"
    try:
        return Path.home() / ".cache" / "slimnet"
    except RuntimeError:
        return None


def file_of(key: Key) -> Path | None:
    """The file of a key's prices; None without a cache folder."""
    folder = cache_folder()
    return None if folder is None else folder / FOLDER / key.file


def read_prices(key: Key, warn: Warn) -> WidthPrices | None:
    """The stored prices of a key; None if there are none, or with a warning if they cannot be used."""
    path = file_of(key)
    if path is None or not is_there(path):
        return None
    try:
        found = read_record(StoredPrices, path, SlimnetError)
    except SlimnetError as error:
        warn(f"{error}; {AGAIN}")
        return None
    if found.key != key or found.prices.runtime != key.runtime:
        warn(f"{path} was measured elsewhere; {AGAIN}")
        return None
    return found.prices


def is_there(path: Path) -> bool:
    """Whether there is anything at a path, or the system does not say."""
    try:
        return os.path.lexists(path)
    except OSError:
        return True


def write_prices(key: Key, prices: WidthPrices, warn: Warn) -> None:
    """Store the prices of a key; where that is not possible, there is a warning and nothing else."""
    path = file_of(key)
    if path is None:
        return
    stored = StoredPrices(key, prices, datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, SlimnetError) as file:
            file.write_text(json.dumps(asdict(stored), indent=1) + "\n", encoding="utf-8")
    except (SlimnetError, OSError) as error:
        warn(f"what was measured of kernels is not stored, and next time measured again: {error}")
