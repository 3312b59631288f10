"""OpenVINO: the import of its package, networks that it reads and compiles, and what it says if it refuses one."""

import functools
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from slimnet.errors import ExportError, UsageError, whole_reason
from slimnet.export.openvino_graph import entries_of
from slimnet.export.telemetry import without_telemetry
from slimnet.modules.example_inputs import Inputs
from slimnet.storage.files import open_file
from slimnet.torch_state.process import denormals_kept
from slimnet.version import install_command

GRAPH, WEIGHTS = ".xml", ".bin"
"""The ends of the names of the two files of a network in OpenVINO's own format."""

INSTALL = install_command("openvino")

SETTINGS = {
    "INFERENCE_PRECISION_HINT": "f32",
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    "CPU_DENORMALS_OPTIMIZATION": True,
    "ENABLE_CPU_PINNING": False,
}
"""How networks are compiled: in float32, for which OpenVINO otherwise takes bfloat16 or float16 where the CPU has them;
one input at a time; denormal numbers as zeros; and no thread bound to a core, on which another runtime may compute."""

NOT_THE_REASON = ("Exception from ", "Check '", "FrontEnd API failed", "Summary:", "While validating ")
"""How those lines of OpenVINO's messages begin that name places in its source."""


def load_openvino() -> ModuleType:
    """Import OpenVINO, without its telemetry.

    Raises:
        UsageError: it is not installed (it is an optional extra), or does not load.
    """
    try:
        with without_telemetry():
            import openvino
    except Exception as error:  # a library that is missing or does not fit raises errors of all kinds
        if isinstance(error, ModuleNotFoundError) and error.name == "openvino":
            raise UsageError(f"openvino is not installed; {INSTALL}") from error
        raise UsageError(f"openvino does not load here: {whole_reason(error)}; reinstall it: {INSTALL}") from error
    return openvino


@functools.cache
def core() -> Any:
    """The process's `openvino.Core`.

    Raises:
        UsageError: as `load_openvino`.
    """
    return load_openvino().Core()


def read_graph(path: Path) -> Any:
    """A network in OpenVINO's own format.

    Raises:
        UsageError: it cannot be read, or OpenVINO does not read it, or is not installed.
    """
    for part in (path, path.with_suffix(WEIGHTS)):
        try:
            # OpenVINO itself would wait for a pipe.
            with open_file(part):
                pass
        except OSError as error:
            raise UsageError(f"{part} cannot be read: {error.strerror or error}; check the path") from error
    try:
        return core().read_model(str(path))
    except RuntimeError as error:
        raise UsageError(f"OpenVINO does not read {path}: {said(error)}") from error


def compiled(model: Any, threads: int = 0, *, layer_times: bool = False) -> Any:
    """A network compiled for the CPU, for a number of threads; 0: as many as OpenVINO chooses."""
    settings = SETTINGS | {"INFERENCE_NUM_THREADS": threads, "PERF_COUNT": layer_times}
    # With CPU_DENORMALS_OPTIMIZATION denormal numbers would from then on be zeros in this thread, for torch too.
    with denormals_kept():
        return core().compile_model(model, "CPU", settings)


def arrays_of(inputs: Inputs) -> list[np.ndarray]:
    """The inputs as arrays on the CPU that OpenVINO reads in place."""
    return [np.ascontiguousarray(tensor.detach().cpu().numpy()) for tensor in inputs.tensors]


def check_shapes(ports: Sequence[Any], arrays: Sequence[np.ndarray]) -> None:
    """Refuse inputs that do not fit a network: OpenVINO itself computes on some of them, past the end of weights.

    Raises:
        ValueError: there are more or fewer of them, or one has another shape.
    """
    if len(ports) != len(arrays):
        raise ValueError(f"it takes {len(ports)} inputs, not {len(arrays)}")
    shape_of = load_openvino().PartialShape
    for port, array in zip(ports, arrays, strict=True):
        if not port.partial_shape.compatible(shape_of(list(array.shape))):
            raise ValueError(f"its input {port.any_name} has the shape {port.partial_shape}, not {array.shape}")


def said(error: Exception) -> str:
    """What OpenVINO says of a network that it refuses, in one line, without the places in its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    words = " ".join(line for line in lines if line and not line.startswith(NOT_THE_REASON))
    return words or whole_reason(error)


def infer(network: Any, inputs: Inputs) -> list[torch.Tensor]:
    """The outputs of a compiled network.

    Raises:
        RuntimeError, ValueError: it does not take these inputs.
    """
    arrays = arrays_of(inputs)
    check_shapes(network.inputs, arrays)
    return [torch.from_numpy(array) for array in network(arrays).values()]


class OpenVinoRunner:
    """Runs a network in OpenVINO's own format: maps `Inputs` to the list of output tensors.

    `metadata` is what the file states about itself.

    Raises:
        ExportError: OpenVINO rejects it.
        UsageError: as `load_openvino`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            network = core().read_model(str(path))
            self.metadata = entries_of(network)
            self.network = compiled(network)
        except RuntimeError as error:
            raise ExportError(f"{path.name} is not a network that OpenVINO runs: {said(error)}") from error

    def __call__(self, inputs: Inputs) -> list[torch.Tensor]:
        """Run the network.

        Raises:
            ExportError: it does not take these inputs.
        """
        try:
            return infer(self.network, inputs)
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"{self.path.name} does not run under OpenVINO: {said(error)}") from error
