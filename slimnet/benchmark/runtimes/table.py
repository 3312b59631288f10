"""The table of runtimes: one row for each."""

from collections.abc import Mapping

from slimnet.benchmark.runtimes.executorch import ExecuTorch
from slimnet.benchmark.runtimes.ncnn import Ncnn
from slimnet.benchmark.runtimes.onnxruntime import OnnxRuntime
from slimnet.benchmark.runtimes.openvino import OpenVino
from slimnet.benchmark.runtimes.runtime import Runtime
from slimnet.benchmark.runtimes.tensorrt import TensorRt
from slimnet.benchmark.runtimes.torch import Torch
from slimnet.benchmark.runtimes.torch_compile import TorchCompile
from slimnet.benchmark.runtimes.torch_graph import TorchGraph
from slimnet.errors import check_name

RUNTIMES: tuple[Runtime, ...] = (
    Torch(),
    TorchCompile(),
    TorchGraph(),
    OnnxRuntime(),
    OpenVino(),
    Ncnn(),
    ExecuTorch(),
    TensorRt(),
)
"""The runtimes in the order of measurement; the first runs on every device."""

DEPLOYED = OnnxRuntime.name
"""The default runtime for which slim networks are made."""


def runtime_names() -> tuple[str, ...]:
    """The names of all runtimes."""
    return tuple(each.name for each in RUNTIMES)


def find_runtime(name: str) -> Runtime:
    """The runtime of a name.

    Raises:
        UsageError: there is none.
    """
    check_name("runtime", name, runtime_names())
    return next(each for each in RUNTIMES if each.name == name)


def installed_versions() -> Mapping[str, str]:
    """The versions of all installed packages of runtimes."""
    return {package: version for each in RUNTIMES for package, version in each.versions().items()}
