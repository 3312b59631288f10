"""The pixel cache: the decoded images of a folder as one array of bytes on disk, which is memory-mapped.

pixels.npy    uint8 (N, H, W, 3), training images first
state.npy     uint8 (N,): 0 not decoded yet, then 1 + the kind of conversion, or 255 for unreadable
index.json    written last: the content of the array
lock          held by the process that decodes
"""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap

from slimnet.data.folder.decode import decode
from slimnet.data.folder.decode_pool import BROKEN, ProgressCallback, array_in, fill
from slimnet.data.folder.listing import Listing
from slimnet.data.image_data import ImageData
from slimnet.errors import DataError
from slimnet.storage.files import held, open_file, os_errors_as, read_text, whole_file

PIXELS, GOOD, STATE, INDEX = "pixels.npy", "good.npy", "state.npy", "index.json"
VERSION = 1
NAMED = 3
"""The number of unreadable images that an error lists."""

PART = 1024
"""Images that are counted or copied at a time."""

RESIDENT_BYTES = 1 << 30
"""Bytes; a smaller set is read into memory, a larger one is memory-mapped."""


def packed(
    listing: Listing,
    size: int | None,
    cache: str | Path | None = None,
    *,
    skip_broken: bool = False,
    progress: ProgressCallback | None = None,
) -> ImageData:
    """The images of a listing, read from the cache, or decoded into it first.

    Images are decoded on every core. A process that is killed loses the work of the last seconds; the next one resumes.
    `cache` is the folder of packed sets (default: `~/.cache/slimnet`). Sets below a gigabyte are read into memory,
    larger ones are memory-mapped.

    Raises:
        DataError: images are unreadable (named and counted; with `skip_broken` they are left out), have several
            sizes although no `size` is given, or the cache cannot be written or is being filled by another process.
    """
    paths = [path for path, _ in (*listing.train, *listing.test)]
    place = Path(cache or cache_folder()) / f"{listing.folder.name}-{digest(listing, paths, size, skip_broken)}"
    with os_errors_as(place, DataError):
        place.mkdir(parents=True, exist_ok=True)
    if not (place / INDEX).exists():
        with held(place, DataError, "decoding images"):
            if not (place / INDEX).exists():
                _pack(place, listing, paths, size, skip_broken, progress)
    return _opened(place, listing)


def cache_folder() -> Path:
    """The default folder of packed data sets."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slimnet"


def digest(listing: Listing, paths: list[Path], size: int | None, skip_broken: bool) -> str:
    """A digest that identifies a packed set: the files with their sizes and times, their classes, and `size`."""
    digest_of_set = hashlib.sha256(f"{VERSION} {size} {skip_broken} {listing.classes}".encode())
    for path, label in (*listing.train, *listing.test):
        digest_of_set.update(f"{path.relative_to(listing.folder)}|{label}|{_stamp(path)}\n".encode())
    return digest_of_set.hexdigest()[:16]


def _stamp(path: Path) -> str:
    """The size and time of a file; "unreadable" for one without, such as a broken link, which decoding reports."""
    try:
        status = path.stat()
    except OSError:
        return "unreadable"
    return f"{status.st_size}|{status.st_mtime_ns}"


def _pack(
    place: Path,
    listing: Listing,
    paths: list[Path],
    size: int | None,
    skip_broken: bool,
    progress: ProgressCallback | None,
) -> None:
    """Decode missing images, check for unreadable ones, and write the index."""
    shape = (size, size) if size is not None else _common_shape(paths)
    with os_errors_as(place, DataError):
        pixels = array_in(place / PIXELS, (len(paths), *shape, 3))
        state = array_in(place / STATE, (len(paths),))
    kinds = fill(paths, size, pixels, state, progress)
    broken = np.flatnonzero(state == BROKEN)
    if broken.size and not skip_broken:
        raise DataError(_complaint(paths, broken, size))
    _write_index(place, listing, paths, state, kinds, pixels)


def _common_shape(paths: list[Path]) -> tuple[int, int]:
    """The size of the first readable image, which all of them must have."""
    for path in paths:
        try:
            height, width, _ = decode(path, None).pixels.shape
        except DataError:
            continue
        return height, width
    raise DataError(f"none of the {len(paths)} images can be read, beginning with {paths[0]}; see what they are")


def _complaint(paths: list[Path], broken: np.ndarray, size: int | None) -> str:
    """The message with the number of unreadable images, and the reasons of the first of them."""
    named = []
    for index in broken[:NAMED].tolist():
        try:
            decode(paths[index], size)
        except DataError as error:
            named.append(f"{paths[index]} ({error})")
    more = f" and {broken.size - NAMED} more" if broken.size > NAMED else ""
    return (
        f"{broken.size} of {len(paths)} images cannot be read: {', '.join(named)}{more}; "
        "replace or delete them, or leave them out with --skip-broken"
    )


def _write_index(
    place: Path, listing: Listing, paths: list[Path], state: np.ndarray, kinds: list[str], pixels: np.memmap
) -> None:
    """Write the index, which marks the set as complete."""
    good = state != BROKEN
    train = int(good[: len(listing.train)].sum())
    test = int(good.sum()) - train
    if not train or not test:
        missing = "test" if train else "training"
        raise DataError(f"{listing.folder}: none of the {missing} images can be read; see what they are")
    if not good.all():
        pixels = _without_broken(place, pixels, np.flatnonzero(good))
    mean, std = statistics(pixels, train)
    counts = Counter(kinds[number] for number in (state[good].astype(int) - 1).tolist())
    index = {
        "version": VERSION,
        "pixels": PIXELS if good.all() else GOOD,
        "train": train,
        "mean": mean,
        "std": std,
        "converted": {kind: number for kind, number in counts.items() if kind},
        "left_out": [
            str(path.relative_to(listing.folder))
            for path in (*listing.left_out, *(paths[row] for row in np.flatnonzero(~good).tolist()))
        ],
    }
    with whole_file(place / INDEX, DataError) as path:
        path.write_text(json.dumps(index, indent=1))
    if not good.all():
        (place / PIXELS).unlink()


def _without_broken(place: Path, pixels: np.memmap, rows: np.ndarray) -> np.memmap:
    """A second array with the readable images only."""
    with whole_file(place / GOOD, DataError) as path:
        good = open_memmap(path, mode="w+", dtype=np.uint8, shape=(rows.size, *pixels.shape[1:]))
        for start in range(0, rows.size, PART):
            good[start : start + PART] = pixels[rows[start : start + PART]]
        good.flush()
    return good


def statistics(pixels: np.ndarray, count: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over the first `count` images, scaled to 0..1, from histograms."""
    channels = pixels.shape[-1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, count, PART):
        part = pixels[start : min(count, start + PART)]
        for channel in range(channels):
            counts[channel] += np.bincount(part[..., channel].reshape(-1), minlength=256)
    shares, values = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(1))
    return mean.tolist(), np.where(std > 0, std, 1.0).tolist()


def _opened(place: Path, listing: Listing) -> ImageData:
    """The packed set as `ImageData`."""
    try:
        index: dict[str, Any] = json.loads(read_text(place / INDEX))
        # "c" (copy on write): torch requires a writable array; changes are not written to disk.
        with open_file(place / index["pixels"]):
            pixels = open_memmap(place / index["pixels"], mode="c")
        left_out, count = set(index["left_out"]), int(index["train"])
        mean, std = tuple(index["mean"]), tuple(index["std"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{place} is damaged ({error}); delete it, and the images are decoded again") from error
    mapped = pixels.nbytes > RESIDENT_BYTES
    images = torch.from_numpy(pixels if mapped else np.array(pixels))
    train, test = (
        torch.tensor(
            [label for path, label in entries if str(path.relative_to(listing.folder)) not in left_out], device="cpu"
        )
        for entries in (listing.train, listing.test)
    )
    name = listing.folder.name
    return ImageData(
        name, images[:count], train, images[count:], test, listing.classes, mean, std, mapped, len(left_out)
    )
