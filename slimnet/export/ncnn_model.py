"""ONNX files converted to ncnn by pnnx, in float32, and how they are run: one image after the other.

ncnn itself does not check what it is given: a layer that it does not have, or an input of another shape, ends the
process. So both are checked here before it is called.
"""

import functools
import importlib.util
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from slimnet.errors import ExportError, UsageError, whole_reason
from slimnet.export.onnx_file import read_onnx
from slimnet.modules.example_inputs import Inputs
from slimnet.version import install_command

INSTALL = install_command("ncnn")
LONGEST = 600
"""The number of seconds after which a conversion is ended."""
GRAPH, WEIGHTS = "net.ncnn.param", "net.ncnn.bin"
"""The files that pnnx writes of net.onnx."""

Shape = tuple[int, ...]


def load_ncnn() -> ModuleType:
    """Import ncnn, and check that pnnx is there.

    Raises:
        UsageError: one of them is not installed (they are an optional extra), or does not load.
    """
    try:
        import ncnn
    except Exception as error:  # a library that is missing or does not fit raises errors of all kinds
        if isinstance(error, ModuleNotFoundError) and error.name == "ncnn":
            raise UsageError(f"ncnn is not installed; {INSTALL}") from error
        raise UsageError(f"ncnn does not load here: {whole_reason(error)}; reinstall it: {INSTALL}") from error
    if converter() is None:
        raise UsageError(f"ncnn needs pnnx to read ONNX files, which is not installed; {INSTALL}")
    return ncnn


def converter() -> Path | None:
    """The program of pnnx, which its package carries; None if it is not installed."""
    found = importlib.util.find_spec("pnnx")
    places = [] if found is None else list(found.submodule_search_locations or ())
    return next((Path(place) / "pnnx" for place in places if (Path(place) / "pnnx").is_file()), None)


class Converted:
    """A network of ncnn for single inputs of fixed shapes, each without the axis of the batch."""

    def __init__(self, network: Any, shapes: Sequence[Shape]) -> None:
        self._network, self._shapes = network, tuple(shapes)
        self._inputs, self._outputs = network.input_names(), network.output_names()

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs `(N, ...)` for inputs `(N, ...)`, computed one by one.

        Raises:
            ValueError: an input has another shape, or ncnn gives up.
        """
        if tuple(array.shape[1:] for array in arrays) != self._shapes:
            raise ValueError(f"it was converted for inputs of {', '.join(map(str, self._shapes))} each")
        rows = [self._run_one([array[number] for array in arrays]) for number in range(len(arrays[0]))]
        return [np.stack(outputs) for outputs in zip(*rows, strict=True)]

    def _run_one(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        matrix = load_ncnn().Mat
        extractor = self._network.create_extractor()
        for name, array in zip(self._inputs, arrays, strict=True):
            extractor.input(name, matrix(array))
        found = [extractor.extract(name) for name in self._outputs]
        if any(code for code, _ in found):
            raise ValueError("ncnn stopped while computing")
        return [np.array(values) for _, values in found]


def arrays_of(inputs: Inputs) -> list[np.ndarray]:
    """The inputs as arrays on the CPU.

    Raises:
        ValueError: one is not float32.
    """
    arrays = [np.ascontiguousarray(tensor.detach().cpu().numpy()) for tensor in inputs.tensors]
    if any(array.dtype != np.float32 for array in arrays):
        raise ValueError(f"ncnn is given float32, not {', '.join(sorted({str(array.dtype) for array in arrays}))}")
    return arrays


def network_for(path: Path, shapes: Sequence[Shape], threads: int) -> Converted:
    """An ONNX file converted for inputs of these shapes, each without the axis of the batch.

    Raises:
        UsageError: it is no ONNX file, pnnx does not convert it, or it has an operator that ncnn has not.
    """
    graph, weights = convert(path, shapes)
    try:
        return loaded(graph, weights, shapes, threads)
    except ExportError as error:
        raise UsageError(f"{path}: {error}; leave ncnn out") from error


def loaded(graph: str, weights: bytes, shapes: Sequence[Shape], threads: int) -> Converted:
    """A converted network for a number of threads.

    Raises:
        ExportError: ncnn does not load it.
    """
    ncnn = load_ncnn()
    network = ncnn.Net()
    for setting in ("use_fp16_storage", "use_fp16_arithmetic", "use_fp16_packed", "use_bf16_storage"):
        setattr(network.opt, setting, False)
    network.opt.num_threads = threads
    with tempfile.TemporaryDirectory(prefix="slimnet-ncnn-") as folder:
        for name, content in ((GRAPH, graph.encode()), (WEIGHTS, weights)):
            (Path(folder) / name).write_bytes(content)
        codes = [network.load_param(f"{folder}/{GRAPH}"), network.load_model(f"{folder}/{WEIGHTS}")]
    if any(codes):
        raise ExportError("ncnn does not load the converted network")
    return Converted(network, shapes)


def convert(path: Path, shapes: Sequence[Shape]) -> tuple[str, bytes]:
    """The graph and the weights of an ONNX file for ncnn. A file is converted once while it stays as it is.

    Raises:
        UsageError: as `network_for`.
    """
    read_onnx(path)
    status = path.stat()
    try:
        return _convert(path, tuple(shapes), (status.st_ino, status.st_mtime_ns, status.st_size))
    except ExportError as error:
        raise UsageError(f"{path}: {error}; leave ncnn out") from error


@functools.lru_cache(maxsize=4)
def _convert(path: Path, shapes: tuple[Shape, ...], _version: tuple[int, int, int]) -> tuple[str, bytes]:
    return converted(path, shapes)


def converted(path: Path, shapes: Sequence[Shape]) -> tuple[str, bytes]:
    """The graph and the weights of an ONNX file for ncnn.

    Raises:
        ExportError: pnnx does not convert it, or it has an operator that ncnn has not.
    """
    load_ncnn()
    with tempfile.TemporaryDirectory(prefix="slimnet-pnnx-") as folder:
        here = Path(folder)
        # pnnx writes ten files beside the one that it reads.
        (here / "net.onnx").write_bytes(path.read_bytes())
        given = ",".join(f"[{','.join(map(str, (1, *shape)))}]f32" for shape in shapes)
        command = [str(converter()), "net.onnx", f"inputshape={given}", "fp16=0"]
        try:
            ended = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=LONGEST, check=False)
        except subprocess.TimeoutExpired as error:
            raise ExportError(f"pnnx does not convert it within {LONGEST} s") from error
        if ended.returncode or not (here / GRAPH).is_file():
            last = (ended.stderr or ended.stdout).strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
            raise ExportError(f"pnnx does not convert it: {last[0]}")
        graph, weights = (here / GRAPH).read_text(encoding="utf-8"), (here / WEIGHTS).read_bytes()
    if missing := unknown_layers(graph):
        raise ExportError(f"ncnn has no {', '.join(missing)}, which it needs")
    return graph, weights


def unknown_layers(graph: str) -> list[str]:
    """The kinds of layers in a graph that pnnx could not translate, by their names in torch, such as Tensor.slice."""
    kinds = {line.split()[0] for line in graph.splitlines()[2:] if line.strip()}
    return sorted(kind for kind in kinds if "." in kind or "::" in kind)
