"""read_archive: the records of a .pt2 file and the tensors in it, none of them larger than the file itself.

The archive is a zip file as `torch.export.save` writes it: every record is stored once, uncompressed. Anything else is
refused, so that nothing is decompressed, unpickled or expanded beyond the size of the file.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from slimnet.errors import BundleError
from slimnet.export.pt2.numbers import integer

PREFIX = "archive/"
"""The folder of every record in an archive of torch."""

RECORDS = re.compile(
    r"data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|models/model\.json"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)",
    re.ASCII,
)
"""The records of a program without pickles and compiled code."""

SAMPLES = "data/sample_inputs/model.pt"
"""Example inputs, which torch would unpickle; `capture` leaves them out."""

MODEL = "models/model.json"

PAYLOADS = {
    "weights": "data/weights/model_weights_config.json",
    "constants": "data/constants/model_constants_config.json",
}
"""The record that lists the tensors, for each of the two kinds."""

LARGEST_TEXT = 2**25
"""The largest total size of the JSON records in bytes; parsed, they take up to twenty times as much."""

MOST_RECORDS = 2**16

END = 22
"""The length of the end record of a zip file, which locates its directory."""

DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    9: torch.complex32,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
    28: torch.uint16,
    29: torch.float8_e4m3fn,
    30: torch.float8_e5m2,
    31: torch.float8_e4m3fnuz,
    32: torch.float8_e5m2fnuz,
    33: torch.float8_e8m0fnu,
    34: torch.uint32,
    35: torch.uint64,
}
"""Types of numbers as an exported program encodes them."""

STRIDED = 7
"""The layout of a tensor that is neither sparse nor packed, as an exported program encodes it."""


@dataclass(frozen=True)
class Archive:
    """The content of a .pt2 file: the program and the two lists of tensors as JSON data, and the tensors by name."""

    model: Any
    lists: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, torch.Tensor]]


def read_archive(content: bytes) -> Archive:
    """Read a .pt2 file whole.

    Raises:
        BundleError: it is no such archive, or holds more than a program and its tensors.
    """
    check_directory(content)
    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    names = reader.get_all_records()
    check_records(reader, names)
    lists = {kind: parsed(reader, place, names) for kind, place in PAYLOADS.items()}
    model = parsed(reader, MODEL, names)
    return Archive(model, lists, {kind: tensors_of(reader, kind, entries, names) for kind, entries in lists.items()})


def check_directory(content: bytes) -> None:
    """Refuse a zip file that contains anything but records of a program, each stored once and within the file.

    Raises:
        BundleError: naming what it holds.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries, comment = archive.infolist(), archive.comment
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise BundleError("it is not an archive") from error
    if content[-END:][:4] != b"PK\5\6" or comment or not entries or min(entry.header_offset for entry in entries) != 0:
        raise BundleError("it holds bytes outside the records of an archive")
    if len(entries) > MOST_RECORDS:
        raise BundleError(f"it holds {len(entries):,} records, more than {MOST_RECORDS:,}")
    if sum(entry.file_size for entry in entries) > len(content):
        raise BundleError("its records claim more bytes than the file has")
    for entry in entries:
        check_entry(entry)
    if len({entry.filename for entry in entries}) != len(entries):
        raise BundleError("it holds a record twice")


def check_entry(entry: zipfile.ZipInfo) -> None:
    """Refuse an entry of a zip file that is compressed or encrypted, or is no record of a program.

    Raises:
        BundleError: naming it.
    """
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
        raise BundleError(f"it holds {entry.filename!r:.60} compressed or encrypted")
    if not entry.filename.startswith(PREFIX) or not RECORDS.fullmatch(entry.filename.removeprefix(PREFIX)):
        raise BundleError(f"it holds {entry.filename!r:.60}, which is not part of a captured network")


def check_records(reader: Any, names: list[str]) -> None:
    """Check the records again as torch's own reader lists them.

    Raises:
        BundleError: naming it.
    """
    for name in names:
        if not RECORDS.fullmatch(name):
            raise BundleError(f"it holds {name!r:.60}, which is not part of a captured network")
    if len(set(names)) != len(names):
        raise BundleError("it holds a record twice")
    if SAMPLES in names and reader.get_record_size(SAMPLES):
        raise BundleError("it holds pickled example inputs")
    if sum(reader.get_record_size(name) for name in names if name.endswith(".json")) > LARGEST_TEXT:
        raise BundleError(f"its description takes more than {LARGEST_TEXT / 2**20:.0f} MiB")


def parsed(reader: Any, name: str, names: list[str]) -> Any:
    """A record of JSON.

    Raises:
        BundleError: there is none, or it is not JSON.
    """
    if name not in names:
        raise BundleError(f"it has no {name}")
    try:
        return json.loads(reader.get_record(name), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"its {name} is not JSON") from error


def refuse_constant(text: str) -> None:
    """Refuse `NaN` and `Infinity`, which are no JSON; torch writes them as text."""
    raise ValueError(text)


def tensors_of(reader: Any, kind: str, entries: Any, names: list[str]) -> dict[str, torch.Tensor]:
    """The tensors of a list, by name; tensors of one record share its memory.

    Raises:
        BundleError: one is a pickle, or does not fit its record.
    """
    flat: dict[tuple[str, torch.dtype], torch.Tensor] = {}
    found = {}
    for name, entry in entries["config"].items():
        if entry.get("use_pickle"):
            raise BundleError("it holds a pickle")
        meta, place = entry["tensor_meta"], f"data/{kind}/{entry['path_name']}"
        dtype = DTYPES.get(integer(meta["dtype"]))
        if dtype is None or meta["layout"] != STRIDED or meta["device"]["type"] != "cpu":
            raise BundleError(f"it has {name!r:.60} of a type that is not read")
        if place not in names:
            raise BundleError(f"it has no numbers for {name!r:.60}")
        if (place, dtype) not in flat:
            flat[place, dtype] = numbers_of(reader, place, dtype)
        found[name] = strided(flat[place, dtype], meta, name)
    return found


def numbers_of(reader: Any, place: str, dtype: torch.dtype) -> torch.Tensor:
    """The values of a record `(n,)`.

    Raises:
        BundleError: its size is no multiple of the element size.
    """
    content = bytearray(reader.get_record(place))
    if len(content) % dtype.itemsize:
        raise BundleError(f"its {place} has {len(content):,} bytes, which is not a whole number of {dtype}")
    return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype, device="cpu")


def strided(flat: torch.Tensor, meta: Mapping[str, Any], name: str) -> torch.Tensor:
    """A tensor as a view of the values of its record.

    Raises:
        BundleError: its shape does not fit into the record.
    """
    sizes, strides = ([integer(each["as_int"]) for each in meta[field]] for field in ("sizes", "strides"))
    offset, count = integer(meta["storage_offset"]["as_int"]), 1
    for size in sizes:
        count *= size
    reach = offset + 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if min(*sizes, *strides, offset, 0) < 0 or len(sizes) > 64:
        raise BundleError(f"it has {name!r:.60} of no shape")
    if (reach if count else offset) > len(flat) or count > max(len(flat), 1):
        raise BundleError(f"it has {name!r:.60} of more numbers than it holds")
    return flat.as_strided(sizes, strides, offset)
