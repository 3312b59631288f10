"""The runtimes that networks are measured on: one row each."""

from collections.abc import Mapping

from slimnet.benchmark.runtimes.onnxruntime import OnnxRuntime
from slimnet.benchmark.runtimes.runtime import Runtime
from slimnet.benchmark.runtimes.torch import Torch
from slimnet.benchmark.runtimes.torch_compile import TorchCompile
from slimnet.benchmark.runtimes.torch_graph import TorchGraph
from slimnet.errors import UsageError, nearest_name

RUNTIMES: tuple[Runtime, ...] = (
    Torch(),
    TorchCompile(),
    TorchGraph(),
    OnnxRuntime(),
)
"""In the order in which they are measured; the first runs on every device."""

DEPLOYED = OnnxRuntime.name
"""The one that slim networks are made for where nothing else is asked for."""


def runtime_names() -> tuple[str, ...]:
    """The names of all runtimes."""
    return tuple(each.name for each in RUNTIMES)


def find_runtime(name: str) -> Runtime:
    """The runtime of a name.

    Raises:
        UsageError: there is none.
    """
    for each in RUNTIMES:
        if each.name == name:
            return each
    raise UsageError(f"there is no runtime {name!r}; {nearest_name(name, runtime_names())}")


def installed_versions() -> Mapping[str, str]:
    """The versions of all installed packages that runtimes consist of."""
    return {package: version for each in RUNTIMES for package, version in each.versions().items()}
