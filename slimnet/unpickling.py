"""Reading files of unknown origin, in torch's and safetensors' formats, without running code from them."""

import argparse
import pathlib
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from slimnet.errors import CheckpointError
from slimnet.models.architecture import reason

_numpy_scalar = np.float64(0).__reduce__()[0]

# What training scripts save beside the weights, and what may stand for it: options, NumPy numbers, paths.
METADATA: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(code)) for code in ("bool", "int32", "int64", "float16", "float32", "float64")),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    *((pathlib.PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *((pathlib.PureWindowsPath, f"{module}.WindowsPath") for module in ("pathlib", "pathlib._local")),
]

# The packages that an ordinary checkpoint mentions.
ORDINARY = ("torch", "collections", "argparse", "numpy", "pathlib")

NOT_CHECKPOINTS = {
    b"<": "is a web page, not a checkpoint; download the file itself",
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`",
}


def read(file: Path) -> Any:
    """The content of a checkpoint file, tensors on the CPU; the format is told by content, not by suffix.

    Raises:
        CheckpointError: no such file, another format, damaged, or only readable by running code from it.
    """
    try:
        start = _first_bytes(file)
        if start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= file.stat().st_size:
            return _read_safetensors(file)
        if start.startswith(b"PK\x03\x04"):
            _check_archive(file)
        elif not start.startswith(b"\x80"):
            raise CheckpointError(f"{file} {_what_else(file, start)}")
        return _read_torch(file)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or reason(error)}") from error


def _first_bytes(file: Path) -> bytes:
    """The start of a file that exists and holds something."""
    if file.is_dir():
        bundle = (file / "plan.json").exists()
        advice = "load a bundle with slimnet.load" if bundle else "name a file in it"
        raise CheckpointError(f"{file} is a folder, not a checkpoint file; {advice}")
    if not file.exists():
        raise CheckpointError(f"{file} does not exist; check the path of the checkpoint")
    if not file.is_file():
        raise CheckpointError(f"{file} is not an ordinary file; copy the checkpoint into one")
    with file.open("rb") as stream:
        start = stream.read(64)
    if not start:
        raise CheckpointError(f"{file} is empty; copy or download the checkpoint again")
    return start


def _damaged(why: str) -> str:
    return f"is truncated or damaged ({why}); copy or download it again"


def _what_else(file: Path, start: bytes) -> str:
    """What a file is that starts like no checkpoint."""
    for first, what in NOT_CHECKPOINTS.items():
        if start.lstrip().startswith(first):
            return what
    if file.suffix == ".safetensors":
        return _damaged("its safetensors header does not fit its size")
    return "is not a checkpoint: neither torch.save nor safetensors wrote it"


def _read_safetensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{file} {_damaged(reason(error))}") from error


def _check_archive(file: Path) -> None:
    """Refuse zip archives that are no torch.save file, and TorchScript, which is one with code in it."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError) as error:
        raise CheckpointError(f"{file} {_damaged(reason(error))}") from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            f"{file} is a TorchScript program, not a checkpoint; convert it where you trust it: "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        raise CheckpointError(f"{file} is a zip archive without a PyTorch checkpoint in it")


def _read_torch(file: Path) -> Any:
    """What torch.save wrote, by torch's restricted unpickler alone."""
    marked = torch.serialization.get_safe_globals()
    # safe_globals takes away on leaving what it was given: leave out what the user had marked before.
    added = [each for each in METADATA if each not in marked]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(added):
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    # The bytes are unknown and may raise whatever an unpickler can: struct.error, UnicodeDecodeError, ...
    except Exception as error:
        raise CheckpointError(f"{file} {_why_unreadable(file, error)}") from error


def _why_unreadable(file: Path, error: Exception) -> str:
    """What torch's restricted unpickler could not do with a file, and what to do about it."""
    mentioned = mentioned_names(file)
    if any(name.startswith(("torch.nn.modules.", "torch.nn.parallel.")) for name in mentioned):
        return (
            "is a pickled whole module, which can only be read by running code from it; "
            "convert it where its class is importable and you trust it: "
            "torch.save(torch.load(FILE, weights_only=False).state_dict(), NEW_FILE)"
        )
    refused = re.search(r"GLOBAL (\S+)", str(error))
    foreign = [name for name in mentioned if name.partition(".")[0] not in ORDINARY]
    if refused is not None and not foreign:
        foreign = [refused[1]]
    if foreign:
        return (
            f"asks for {foreign[0]}, which is not part of a plain checkpoint; nothing in it was run; "
            "if you trust it, load it yourself and torch.save its state_dict alone"
        )
    if "Unsupported operand" in str(error):
        return "is damaged, or of an unusual pickle protocol; torch.save it again with the default one"
    return _damaged(_torch_reason(error))


def _torch_reason(error: Exception) -> str:
    """The part of torch's long message that says what happened."""
    inner = re.search(r"WeightsUnpickler error:\s*([^\n]+)", str(error))
    if inner is not None:
        return inner[1].strip()
    return "its pickle ends too early" if "Weights only load failed" in str(error) else reason(error)


def mentioned_names(file: Path) -> list[str]:
    """The classes and functions that a pickle names, found by disassembling it; nothing is loaded.

    Names that a pickle composes in unusual ways can be missed: good for messages, not for decisions.
    """
    names: dict[str, None] = {}
    try:
        with file.open("rb") as stream:
            if not zipfile.is_zipfile(stream):
                stream.seek(0)
                # The older format is a sequence: a magic number, a version, the machine, then the object.
                for _ in range(4):
                    names.update(dict.fromkeys(_names_in_pickle(stream)))
                return list(names)
        with zipfile.ZipFile(file) as archive:
            member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(member) as stream:
                names.update(dict.fromkeys(_names_in_pickle(stream)))
    # Disassembling unknown bytes may raise nearly anything, MemoryError for an absurd length included.
    except Exception:
        return list(names)
    return list(names)


def _names_in_pickle(stream: IO[bytes]) -> Iterator[str]:
    """Follow the strings of one pickle, through its memo too: from protocol 4 on they compose the names."""
    strings: list[str] = []
    memo: dict[Any, str | None] = {}
    latest: str | None = None
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = latest
        elif opcode.name.endswith("PUT"):
            memo[argument] = latest
        latest = memo.get(argument) if opcode.name.endswith("GET") else argument
        latest = latest if isinstance(latest, str) else None
        if latest is not None:
            strings.append(latest)
