"""ONNX files read from disk."""

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from slimnet.errors import UsageError
from slimnet.storage.files import open_file


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX model.

    Raises:
        UsageError: the file is missing, or is not an ONNX model.
    """
    try:
        with open_file(path):
            model = onnx.load(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise UsageError(f"{path} is not an ONNX model; pass a file that slimnet export wrote") from error
    if not model.graph.node:
        raise UsageError(f"{path} is an ONNX model that computes nothing; pass a file that slimnet export wrote")
    return model
