"""Image sets in one NumPy .npz file: x_train, y_train, x_test, y_test and, optionally, classes."""

import io
import lzma
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy

from slimnet.data.image_data import ImageData
from slimnet.errors import DataError
from slimnet.storage.files import open_file

_NEEDED = ("x_train", "y_train", "x_test", "y_test")
LIMIT_CLASSES = 1 << 16
"""The largest number of classes; a network has an output, and a confusion matrix a row, for each."""

LIMIT_NAMES = 1 << 26
"""The largest total size in bytes of the class names."""

LONGEST_HEADER = 1 << 14
"""The bytes of an array that are read for its dtype and shape; NumPy's own headers are a hundredth of it."""

FREELY_EXPANDED, LARGEST_RATIO = 1 << 28, 50
"""The bytes to which a compressed array may expand, or how many times its size in the file. Photographs compress to
half, drawn digits to a tenth, and a gigabyte of zeros to a thousandth."""

_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""The exceptions that NumPy and zipfile raise for damaged or wrong files."""


def load_npz(path: str | Path) -> ImageData:
    """Read images `(N, H, W, C)` as uint8 and labels `(N,)` as any integers, one array at a time.

    `classes`, if present, names the labels; otherwise the names are 0, 1, ... Nothing is unpickled, and the header of
    an array is checked before the array is read, so that an invalid one costs no memory.

    Raises:
        DataError: the file is missing, damaged or no .npz, or its arrays are not as above.
    """
    path = Path(path)
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            return _read(path, archive)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; give the path of an .npz with {', '.join(_NEEDED)}") from error
    except _UNREADABLE as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = words.splitlines()[0] if words else type(error).__name__
        raise DataError(f"{path}: not a readable .npz ({reason}); write it with numpy.savez") from error
    except MemoryError as error:
        raise DataError(f"{path}: its arrays do not fit into memory; train on fewer or smaller images") from error


def _read(path: Path, archive: zipfile.ZipFile) -> ImageData:
    present = {name.removesuffix(".npy") for name in archive.namelist()}
    missing = [name for name in _NEEDED if name not in present]
    if missing:
        found = ", ".join(sorted(present)[:8]) or "nothing"
        raise DataError(f"{path}: {missing[0]} is missing; it needs {', '.join(_NEEDED)} and holds {found}")
    for name in _NEEDED:
        _check_header(path, archive, name)
    _check_pairs(path, archive)
    train, test = (
        (_array(archive, f"x_{split}"), _array(archive, f"y_{split}").to(torch.int64)) for split in ("train", "test")
    )
    highest = max(_highest_label(train[1]), _highest_label(test[1]))
    if highest >= LIMIT_CLASSES:
        raise DataError(
            f"{path}: label {highest} would mean {highest + 1:,} classes, of at most {LIMIT_CLASSES:,}; "
            "number the classes from 0 up"
        )
    classes = _class_names(path, archive) if "classes" in present else [str(label) for label in range(highest + 1)]
    return ImageData.of(path.name, train, test, classes)


def _check_pairs(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse images without labels, and labels without images."""
    for split in ("train", "test"):
        images, labels = (_header(archive, f"{kind}_{split}")[0][0] for kind in "xy")
        if images != labels:
            raise DataError(
                f"{path}: x_{split} has {images:,} images but y_{split} {labels:,} labels; they must pair up"
            )


def _highest_label(labels: torch.Tensor) -> int:
    return int(labels.max()) if labels.numel() else 0


def _check_header(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    """Check the header of an array: its dtype, its shape, and the number of bytes that follow."""
    shape, dtype = _header(archive, name)
    wanted = "uint8 of shape (N, H, W, C)" if name.startswith("x") else "integers of shape (N,)"
    kinds, axes = ("u", 4) if name.startswith("x") else ("iu", 1)
    if dtype.kind not in kinds or len(shape) != axes or (axes == 4 and dtype.itemsize != 1):
        raise DataError(f"{path}: {name} is {dtype} of shape {shape}; it must be {wanted}")


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    member = archive.getinfo(f"{name}.npy")
    if member.file_size > max(FREELY_EXPANDED, LARGEST_RATIO * member.compress_size):
        raise ValueError(
            f"{name} expands from {member.compress_size:,} bytes to {member.file_size:,}, more than "
            f"{LARGEST_RATIO} times as much"
        )
    with archive.open(member) as packed:
        # A header states its own length, and would be decompressed to that length before it is checked.
        file = io.BytesIO(packed.read(LONGEST_HEADER))
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    left = member.file_size - file.tell()
    if not dtype.hasobject and left != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise ValueError(f"{name} has {left} bytes where {dtype} of shape {shape} was announced")
    return shape, dtype


def _array(archive: zipfile.ZipFile, name: str) -> torch.Tensor:
    with archive.open(f"{name}.npy") as file:
        array = npy.read_array(file, allow_pickle=False)
    return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)))


def _class_names(path: Path, archive: zipfile.ZipFile) -> list[str]:
    shape, dtype = _header(archive, "classes")
    if dtype.kind not in "USiu" or len(shape) != 1:
        raise DataError(f"{path}: classes is {dtype} of shape {shape}; it must be one-dimensional text")
    if shape[0] > LIMIT_CLASSES:
        raise DataError(f"{path}: classes has {shape[0]:,} names, of at most {LIMIT_CLASSES:,}")
    if shape[0] * dtype.itemsize > LIMIT_NAMES:
        raise DataError(
            f"{path}: the names of classes take {shape[0] * dtype.itemsize:,} bytes, of at most {LIMIT_NAMES:,}"
        )
    with archive.open("classes.npy") as file:
        names = npy.read_array(file, allow_pickle=False)
    return [str(name) for name in (np.char.decode(names, "utf-8") if dtype.kind == "S" else names)]
