"""ONNX files read and compiled by OpenVINO, and their inputs."""

import functools
from pathlib import Path
from typing import Any

from slimnet.errors import UsageError
from slimnet.export.onnx_file import read_onnx
from slimnet.export.openvino_model import (
    GRAPH,
    arrays_of,
    check_shapes,
    compiled,
    core,
    load_openvino,
    read_graph,
    said,
)
from slimnet.modules.example_inputs import Inputs


def read_network(path: Path) -> Any:
    """An ONNX file, or one in OpenVINO's own format, as a network of OpenVINO.

    Raises:
        UsageError: it is neither, or OpenVINO does not read it.
    """
    if path.suffix == GRAPH:
        return read_graph(path)
    read_onnx(path)
    try:
        return core().read_model(str(path))
    except RuntimeError as error:
        raise UsageError(f"OpenVINO does not read {path}: {said(error)}") from error


def refusal_of(path: Path) -> str | None:
    """Why OpenVINO does not read an ONNX file; None if it does. A file is read once while it stays as it is.

    Raises:
        UsageError: it is no ONNX file, or one in OpenVINO's own format that it does not read.
    """
    status = path.stat() if path.is_file() else None
    return _refusal_of(path, status and (status.st_ino, status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=64)
def _refusal_of(path: Path, _version: tuple[int, int, int] | None) -> str | None:
    if path.suffix == GRAPH:
        read_graph(path)
        return None
    read_onnx(path)
    try:
        core().read_model(str(path))
    except RuntimeError as error:
        return said(error)
    return None


def request_for(path: Path, inputs: Inputs, threads: int, *, layer_times: bool = False) -> Any:
    """An `openvino.InferRequest` of an ONNX file compiled for the shapes of the inputs, which are set.

    Raises:
        UsageError: as `read_network`.
        RuntimeError, ValueError: it does not take these inputs, or OpenVINO does not compile it.
    """
    network, arrays = read_network(path), arrays_of(inputs)
    check_shapes(network.inputs, arrays)
    network.reshape({port: list(array.shape) for port, array in zip(network.inputs, arrays, strict=True)})
    request = compiled(network, threads, layer_times=layer_times).create_infer_request()
    for number, array in enumerate(arrays):
        request.set_input_tensor(number, load_openvino().Tensor(array, shared_memory=True))
    return request
