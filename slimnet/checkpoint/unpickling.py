"""Reading files of unknown origin, in torch's and safetensors' formats, without running code from them."""

import os
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

import safetensors
import safetensors.torch
import torch

from slimnet.errors import CheckpointError, reason
from slimnet.models.user_code import last_on_path
from slimnet.storage.files import open_file
from slimnet.torch_state.process_patch import ProcessPatch
from slimnet.torch_state.silence import silenced


class Placeholder:
    """What is read instead of an object that is no part of the weights; it keeps nothing it is given."""

    def __new__(cls, *_: Any) -> "Placeholder":
        """Make one out of any arguments."""
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


# What training scripts save beside the weights: options, paths, and NumPy's numbers and arrays.
ALLOWED_GLOBALS = (
    "argparse.Namespace",
    *(f"{module}.{name}Path" for module in ("pathlib", "pathlib._local") for name in ("Posix", "Windows")),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "numpy.dtype",
    "numpy.ndarray",
)

# The packages that an ordinary checkpoint mentions.
ORDINARY = ("torch", "collections", "argparse", "numpy", "pathlib", "_codecs")

# What no network needs, though a whole pickled module may hide it among much that it does need.
COMMANDS = (
    "os.",
    "posix.",
    "nt.",
    "subprocess.",
    "sys.",
    "shutil.",
    "socket.",
    "builtins.eval",
    "builtins.exec",
    "__builtin__.eval",
    "__builtin__.exec",
)

NOT_CHECKPOINTS = {
    b"<": "is a web page, not a checkpoint; download the file itself",
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`",
}


def read(file: Path, *, trust: bool = False) -> Any:
    """The content of a checkpoint file, tensors on the CPU; the format is recognised by content, not by suffix.

    With `trust`, a file that can only be read by running code from it is read so.

    Raises:
        CheckpointError: no such file, another format, damaged, or only readable by running code from it.
    """
    try:
        _refuse_others(file)
        with open_file(file) as stream:
            return _read(file, stream, trust=trust)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or reason(error)}") from error


def _read(file: Path, stream: BinaryIO, *, trust: bool) -> Any:
    """The content of an open checkpoint file."""
    start = stream.read(64)
    if not start:
        raise CheckpointError(f"{file} is empty; copy or download the checkpoint again")
    if start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= os.fstat(stream.fileno()).st_size:
        return _read_safetensors(file)
    if start.startswith(b"PK\x03\x04"):
        _check_archive(file, stream)
    elif not start.startswith(b"\x80"):
        raise CheckpointError(f"{file} {_what_else(file, start)}")
    stream.seek(0)
    return _read_torch(file, stream, trust=trust)


def _refuse_others(file: Path) -> None:
    """Refuse what is no file, with what to do about it."""
    if file.is_dir():
        bundle = (file / "plan.json").exists()
        advice = (
            "load a bundle with slimnet.load, train it further with slimnet finetune" if bundle else "name a file in it"
        )
        raise CheckpointError(f"{file} is a folder, not a checkpoint file; {advice}")
    if not file.exists():
        raise CheckpointError(f"{file} does not exist; check the path of the checkpoint")
    if not file.is_file():
        raise CheckpointError(f"{file} is not an ordinary file; copy the checkpoint into one")


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


def _check_archive(file: Path, stream: BinaryIO) -> None:
    """Refuse zip archives that are no torch.save file, and TorchScript, which is one with code in it."""
    try:
        with zipfile.ZipFile(stream) as archive:
            names = archive.namelist()
            packed = [each.filename for each in archive.infolist() if each.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError) as error:
        raise CheckpointError(f"{file} {_damaged(reason(error))}") from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            f"{file} is a TorchScript program, not a checkpoint; convert it where you trust it: "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        raise CheckpointError(f"{file} is a zip archive without a PyTorch checkpoint in it")
    if packed:
        # torch.save compresses nothing; a few bytes could stand for gigabytes.
        raise CheckpointError(
            f"{file} has compressed parts ({packed[0]}); unpack it, and torch.save its state_dict again"
        )


def _read_torch(file: Path, stream: BinaryIO, *, trust: bool) -> Any:
    """What torch.save wrote, by torch's restricted unpickler; with `trust` by pickle, where that one refuses it."""
    try:
        with silenced(), _COMPANY_ALLOWED:
            return torch.load(stream, map_location="cpu", weights_only=True)
    # The bytes are unknown and may raise whatever an unpickler can: struct.error, UnicodeDecodeError, ...
    except Exception as error:
        if not trust or not mentioned_names(file):
            raise CheckpointError(f"{file} {_why_unreadable(file, error)}") from error
    stream.seek(0)
    return _unpickled(file, stream)


def _unpickled(file: Path, stream: BinaryIO) -> Any:
    """What torch.save wrote, by pickle, which imports and calls what the file names."""
    try:
        with silenced(), last_on_path(Path.cwd()):
            return torch.load(stream, map_location="cpu", weights_only=False)
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{file} was pickled with the module {error.name}, which cannot be imported here; "
            "install its package, or run this where its code is"
        ) from error
    # Code of any kind runs.
    except Exception as error:
        raise CheckpointError(
            f"{file} cannot be unpickled ({reason(error)}); "
            "use the versions of the packages that it was written with, or save the state_dict of its network"
        ) from error


def _allow_company() -> Any:
    allowed: list[Any] = [(Placeholder, name) for name in ALLOWED_GLOBALS]
    context = torch.serialization.safe_globals(allowed)
    context.__enter__()
    return context


_COMPANY_ALLOWED = ProcessPatch(_allow_company, lambda context: context.__exit__(None, None, None))


def _why_unreadable(file: Path, error: Exception) -> str:
    """What torch's restricted unpickler could not do with a file, and what to do about it."""
    mentioned = mentioned_names(file)
    commands = [name for name in mentioned if name.startswith(COMMANDS)]
    if not commands and any(name.startswith(("torch.nn.modules.", "torch.nn.parallel.")) for name in mentioned):
        return (
            "is a pickled whole module, which can only be read by running code from it; "
            "if you trust it, and its class is importable, say so with trust=True"
        )
    # torch names what it refused, but in a truncated file that may be half a name.
    refused = [name for name in re.findall(r"GLOBAL (\S+)", str(error)) if name in mentioned]
    foreign = [name for name in mentioned if name.partition(".")[0] not in ORDINARY]
    unasked = [*commands, *refused, *foreign]
    if unasked:
        return (
            f"asks for {unasked[0]}, which is not part of a plain checkpoint; nothing in it was run; "
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
    # Disassembling unknown bytes may raise nearly anything, MemoryError for an absurd length included.
    with suppress(Exception):
        for name in _names_in_file(file):
            names[name] = None
    return [name for name in names if re.fullmatch(r"\w+(\.\w+)+", name)]


def _names_in_file(file: Path) -> Iterator[str]:
    with open_file(file) as stream:
        if zipfile.is_zipfile(stream):
            with zipfile.ZipFile(stream) as archive:
                member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
                with archive.open(member) as inner:
                    yield from _names_in_pickle(inner)
            return
        stream.seek(0)
        # The older format is a sequence: a magic number, a version, the machine, then the object.
        for _ in range(4):
            yield from _names_in_pickle(stream)


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
