"""A network measured in int8, or in float32 beside it, as it is on disk: an ONNX file, or the two of OpenVINO."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Literal

from slimnet.errors import ExportError, UsageError
from slimnet.export.onnx_runner import OnnxRunner
from slimnet.export.openvino_model import GRAPH, WEIGHTS, OpenVinoRunner
from slimnet.storage.files import open_file

CERTIFICATE = ".json"
"""The end of the name of a certificate."""

RuntimeName = Literal["onnxruntime", "openvino"]
"""The runtimes that int8 files are made for, and measured under."""


def runtime_of(path: Path) -> RuntimeName:
    """The runtime of a file, by the end of its name: OpenVINO's is .xml."""
    return "openvino" if path.suffix == GRAPH else "onnxruntime"


def parts_of(path: Path) -> tuple[Path, ...]:
    """The file, and for OpenVINO that of the weights beside it."""
    return (path, path.with_suffix(WEIGHTS)) if runtime_of(path) == "openvino" else (path,)


def certificate_path(path: Path) -> Path:
    """Where the certificate of a file is written: under the whole name of the file, with .json behind it."""
    return path.with_name(path.name + CERTIFICATE)


def stored_certificate(path: Path) -> Path:
    """The certificate beside a file; slimnet 0.1 wrote it with .json in place of the extension.

    Raises:
        UsageError: there is none.
    """
    for place in (certificate_path(path), path.with_suffix(CERTIFICATE)):
        if place.exists():
            return place
    raise UsageError(
        f"{path} has no certificate beside it ({certificate_path(path).name}); verify takes files of export --int8, "
        "which writes one"
    )


def size_of(path: Path) -> int:
    """Bytes of all its parts."""
    return sum(part.stat().st_size for part in parts_of(path))


@contextmanager
def opened(part: Path) -> Iterator[BufferedReader]:
    """A part, opened to be read.

    Raises:
        ExportError: it cannot be.
    """
    try:
        with open_file(part) as file:
            yield file
    except OSError as error:
        why = error.strerror or error
        raise ExportError(f"{part}: cannot be read: {why}; export the network again with --int8") from error


def digest_of(path: Path) -> str:
    """The SHA-256 of its parts, one after the other.

    Raises:
        ExportError: one of them cannot be read.
    """
    digest = hashlib.sha256()
    for part in parts_of(path):
        with opened(part) as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def runner_of(path: Path) -> OnnxRunner | OpenVinoRunner:
    """What runs it on the CPU.

    Raises:
        ExportError: the runtime rejects it, or a part cannot be read.
        UsageError: OpenVINO is not installed.
    """
    if runtime_of(path) == "onnxruntime":
        return OnnxRunner(path)
    for part in parts_of(path):
        # OpenVINO itself would wait for a pipe.
        with opened(part):
            pass
    return OpenVinoRunner(path)


def metadata_in(runner: OnnxRunner | OpenVinoRunner) -> dict[str, str]:
    """What the file says of itself."""
    if isinstance(runner, OpenVinoRunner):
        return runner.metadata
    return dict(runner.session.get_modelmeta().custom_metadata_map)
