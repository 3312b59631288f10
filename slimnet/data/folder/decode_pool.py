"""Fill an array of bytes with decoded images, on every core; resumes where an earlier process stopped."""

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from slimnet.data.folder.decode import Decoded, decode
from slimnet.errors import DataError
from slimnet.storage.files import open_file, whole_file
from slimnet.storage.records import read_record

CHUNK = 64
"""The number of images that a thread decodes at a time."""

SECONDS_BETWEEN_FLUSHES = 5.0
BROKEN = 255
"""The state of an image that cannot be read; 0 is not decoded yet, others are 1 + the kind of conversion."""

ProgressCallback = Callable[[int, int], None]
"""Called with the number of decoded images and the total."""

Chunk = tuple[list[int], list[Decoded | DataError]]


def array_in(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """The array in a file, created with zeros if it does not exist."""
    if path.exists():
        try:
            with open_file(path):
                found = open_memmap(path, mode="r+")
        except (OSError, ValueError):
            path.unlink()
        else:
            if found.shape == shape and found.dtype == np.uint8:
                return found
            del found
            path.unlink()
    return open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def fill(
    paths: list[Path], size: int | None, pixels: np.memmap, state: np.memmap, progress: ProgressCallback | None
) -> list[str]:
    """Decode every image whose state is 0; returns the kinds of conversion, to which the other states refer."""
    kinds = _Kinds(Path(pixels.filename).with_name("kinds.json"))  # type: ignore[arg-type]
    missing = np.flatnonzero(state == 0)
    done = len(paths) - missing.size
    last = time.monotonic()
    chunks = [missing[start : start + CHUNK].tolist() for start in range(0, missing.size, CHUNK)]
    for indices, results in _decoded(paths, size, chunks):
        for index, result in zip(indices, results, strict=True):
            if isinstance(result, Decoded) and result.pixels.shape == pixels.shape[1:]:
                pixels[index] = result.pixels
                state[index] = 1 + kinds.number(result.converted)
            elif isinstance(result, Decoded):
                raise DataError(_other_size(paths[index], result.pixels.shape, pixels.shape[1:]))
            else:
                state[index] = BROKEN
        done += len(indices)
        if progress is not None:
            progress(done, len(paths))
        if time.monotonic() - last > SECONDS_BETWEEN_FLUSHES:
            last = time.monotonic()
            pixels.flush()
            state.flush()
    pixels.flush()
    state.flush()
    return kinds.names


def _other_size(path: Path, found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    return (
        f"{path} has {found[0]} x {found[1]} pixels and others {wanted[0]} x {wanted[1]}; "
        "bring all images to one size with --image-size"
    )


def _decoded(paths: list[Path], size: int | None, chunks: list[list[int]]) -> Iterator[Chunk]:
    """Chunks of images in the order of completion; only a few are in memory at a time."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        # Pillow releases Python's global lock while it decodes and resizes, so threads use every core.
        waiting: dict[Future[list[Decoded | DataError]], list[int]] = {}
        for chunk in chunks:
            waiting[pool.submit(_decode_chunk, [paths[index] for index in chunk], size)] = chunk
            if len(waiting) >= 2 * workers:
                yield from _ended(waiting)
        while waiting:
            yield from _ended(waiting)


def _ended(
    waiting: dict[Future[list[Decoded | DataError]], list[int]],
) -> Iterator[Chunk]:
    done, _ = wait(waiting, return_when="FIRST_COMPLETED")
    for each in done:
        yield waiting.pop(each), each.result()


def _decode_chunk(paths: list[Path], size: int | None) -> list[Decoded | DataError]:
    found: list[Decoded | DataError] = []
    for path in paths:
        try:
            found.append(decode(path, size))
        except DataError as error:
            found.append(error)
    return found


class _Kinds:
    """The numbered kinds of conversion, in a file next to the states that refer to them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        again = "delete it, and the images are decoded again"
        self.names = list(read_record(tuple[str, ...], path, DataError, advice=again)) if path.exists() else [""]

    def number(self, name: str) -> int:
        """The number of a kind; a new kind is written to disk before its number is used."""
        if name not in self.names:
            self.names.append(name)
            with whole_file(self._path, DataError) as path:
                path.write_text(json.dumps(self.names))
        return self.names.index(name)
