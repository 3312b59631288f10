"""Folders that slimnet writes: how one is recognised, and what may be in it, so that one can be replaced safely."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from slimnet.errors import SlimnetError
from slimnet.storage.files import (
    LOCK,
    in_use,
    os_errors_as,
    refuse_existing,
    refuse_unreplaceable,
    refuse_unwritable,
    whole_folder,
)
from slimnet.storage.folder_names import (
    CERTIFICATE,
    CHECKPOINTS,
    IMAGES,
    MANIFEST,
    MODEL,
    ONNX,
    PLAN,
    PROGRAM,
    PROJECTIONS,
    RECIPE,
    TABLE,
    WEIGHTS,
)
from slimnet.storage.records import read_json
from slimnet.storage.staging import is_staging


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder: its name, the JSON file by which it is recognised, and the patterns of all files in it.

    The JSON file is an object with the keys `keys`, and with the values `values`. In a pattern `*` is any text without
    a slash.
    """

    name: str
    mark: str
    keys: tuple[str, ...]
    files: tuple[str, ...]
    values: Mapping[str, Any] = field(default_factory=dict)

    def is_at(self, folder: Path) -> bool:
        """Whether a folder looks like one of this kind; nothing in it is read."""
        return (folder / self.mark).exists()

    def refuse_taken(self, folder: Path, failure: type[SlimnetError], begun: str = "") -> None:
        """Refuse a folder with something in it that is not of this kind; with `begun`, the remedy, of this kind too.

        Raises:
            failure: naming what is in the way.
        """
        if self.is_at(folder):
            if begun:
                raise failure(f"{folder} already holds a {self.name}; {begun}")
            return
        nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
        if not nearest.is_dir():
            raise failure(f"cannot write {folder}: {nearest} is not a folder; name another place")
        with os_errors_as(folder, failure):
            names = sorted(os.listdir(folder)) if nearest == folder else []
        # A process that is killed at its beginning leaves its lock, and a staging file.
        strange = next((name for name in names if name != LOCK and not is_staging(name)), None)
        if strange is not None:
            raise failure(f"{folder} holds {strange} and no {self.name}; name another folder")

    def refuse_foreign(self, folder: Path, failure: type[SlimnetError]) -> None:
        """Refuse to replace what slimnet did not write: anything but a folder of this kind with nothing else in it.

        An empty folder, or none, is accepted.

        Raises:
            failure: naming what is in the way.
        """
        if not os.path.lexists(folder):
            return
        if folder.is_symlink() or not folder.is_dir():
            raise failure(f"cannot replace {folder}: it exists and is not a folder; name another place")
        with os_errors_as(folder, failure):
            present = [path.relative_to(folder).as_posix() for path in _files(folder)]
            foreign = next((name for name in sorted(present) if not self.contains(name)), None)
            busy = in_use(folder)
        if foreign is not None:
            raise failure(
                f"cannot replace {folder}: it holds {foreign}, which slimnet did not make as part of a {self.name}; "
                "move it, or name another folder"
            )
        if present and not self._marks(folder):
            raise failure(
                f"cannot replace {folder}: it has no {self.mark} of a {self.name} that slimnet made; "
                "name another folder"
            )
        if busy:
            raise failure(f"cannot replace {folder}: another process is at work there; wait for it, or end it")

    def refuse_occupied(self, target: Path, failure: type[SlimnetError], *, overwrite: bool) -> None:
        """Refuse a place where a folder of this kind could not be written, before the work begins.

        With `overwrite` an earlier one may be there.

        Raises:
            failure: naming the obstacle.
        """
        if overwrite:
            refuse_unreplaceable(target, failure, partial(self.refuse_foreign, failure=failure))
        else:
            remedy = f"replace the {self.name} with overwrite=True" if self.is_at(target) else ""
            refuse_existing(target, failure, remedy)
            refuse_unwritable(target, failure)

    @contextmanager
    def whole(self, target: Path, failure: type[SlimnetError], *, overwrite: bool) -> Iterator[Path]:
        """Atomic write of such a folder, as `whole_folder`; with `overwrite` an earlier one is replaced at the end.

        Raises:
            failure: as of `whole_folder`, or what is there is not of this kind.
        """
        replaceable = partial(self.refuse_foreign, failure=failure) if overwrite else None
        with whole_folder(target, failure, replaceable=replaceable) as staging:
            yield staging

    def contains(self, name: str) -> bool:
        """Whether a path in the folder, with slashes, is one that slimnet writes there."""
        parts = name.split("/")
        return parts[-1] == LOCK or is_staging(parts[-1]) or any(_matches(parts, each) for each in self.files)

    def _marks(self, folder: Path) -> bool:
        try:
            document = read_json(folder / self.mark, SlimnetError)
        except SlimnetError:
            return False
        known = isinstance(document, dict) and all(key in document for key in self.keys)
        return known and all(document.get(key) == value for key, value in self.values.items())


def _files(folder: Path) -> list[Path]:
    """Everything in a folder but folders with something in them; symbolic links are not followed.

    Raises:
        OSError: a folder cannot be read.
    """
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            inner = _files(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else []
            found += inner if inner or entry.is_dir(follow_symlinks=False) else [Path(entry.path)]
    return found


def _matches(parts: list[str], pattern: str) -> bool:
    wanted = pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _inside(folder: str, files: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in files)


BUNDLE_FILES = (MANIFEST, WEIGHTS, PLAN, PROGRAM, ONNX, CERTIFICATE, PROJECTIONS)

BUNDLE = FolderKind("bundle", MANIFEST, ("files", "plan_digest"), BUNDLE_FILES)
"""What `save` writes."""

RUN = FolderKind(
    "run",
    RECIPE,
    ("arch", "data", "iterations"),
    (
        *(RECIPE, IMAGES, "metrics.jsonl", "sessions.jsonl", "report.html", "report_[0-9]*.html"),
        *(MODEL, "model_[0-9]*.pt", "model_best.pt", "model_best.pt.damaged"),
        *("history/*.safetensors", f"{CHECKPOINTS}/*.pt", f"{CHECKPOINTS}/*.pt.damaged"),
        *_inside("slim", BUNDLE_FILES),
        *_inside("slim_[0-9]*", BUNDLE_FILES),
        "tensorboard/events.out.tfevents.*",
    ),
)
"""What `slimnet train` writes."""

LADDER = FolderKind(
    "ladder",
    "ladder.json",
    ("conditions", "rungs"),
    ("ladder.json", "ladder.html", *_inside("exact", BUNDLE_FILES), *_inside("*-[0-9]*", BUNDLE_FILES)),
    {"made_by": "slimnet ladder"},
)
"""What `slimnet ladder` writes."""

COMPARISON = FolderKind(
    "comparison",
    "comparison.json",
    ("conditions", "environment"),
    (
        *("comparison.json", "results.json", "report.html", "dense.json", "dense.onnx"),
        *("cells/*.json", "networks/*.onnx", "sparse/*.pt", "under_way/*/*.pt", "under_way/*/selection.json"),
    ),
)
"""What `slimnet compare` writes."""

DEMO = FolderKind(
    "demo",
    "demo.json",
    ("recipe",),
    (
        *("demo.json", "report.html", f"dense/{WEIGHTS}", f"dense/{ONNX}"),
        *_inside("slim", BUNDLE_FILES),
    ),
    {"made_by": "slimnet demo"},
)
"""What `slimnet demo` writes."""

SWEEP = FolderKind("sweep", TABLE, (), ())
"""What `slimnet sweep` works in; it is never replaced."""

KINDS = {kind.name: kind for kind in (BUNDLE, RUN, LADDER, COMPARISON, DEMO)}
