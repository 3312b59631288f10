"""The one door to torchvision, timm, fvcore and torch-pruning: they come in from here, and nowhere else.

torchvision describes two of its detection operators (`nms` and `qnms`) to torch while it is being imported.
When its compiled library cannot be loaded (it was built for another CUDA, or for another torch), those
operators do not exist and the import dies with "operator torchvision::nms does not exist", although its
classification and segmentation networks need no compiled code at all. In that case, and only then, the
missing operators are declared here without an implementation: the import goes through, the networks work,
and a call of `nms` itself still says that the compiled library is missing.

fvcore compiles seven small functions with `torch.jit.script` while it is being imported, each with torch's warning that
`torch.jit.script` is deprecated. Nobody here calls these functions, so those warnings, and no others, are not shown.
"""

import importlib
import re
import sys
import threading
from types import ModuleType

import torch

from slimnet.errors import UsageError
from slimnet.torch_state.silence import silenced
from slimnet.version import install_command

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

_INSTALL = {
    "torchvision": "pip install torchvision",
    "timm": install_command("timm"),
    "fvcore": "pip install fvcore",
    "torch_pruning": "pip install torch-pruning",
}

# Else one thread would take for leftovers what another is importing.
_IMPORTING = threading.RLock()

# A schema lives as long as the Library that declared it.
_declarations: list[torch.library.Library] = []


def torchvision() -> ModuleType:
    """Import torchvision, whether or not its compiled operators load.

    Raises:
        UsageError: torchvision is missing, or broken in some other way.
    """
    with _IMPORTING:
        for _ in range(len(_SCHEMAS) + 1):
            try:
                return _fresh_import("torchvision")
            except RuntimeError as error:
                _declare_missing_operator(error)
    raise UsageError(_broken("torchvision", "its operators cannot be declared"))


def timm() -> ModuleType:
    """Import timm.

    Raises:
        UsageError: timm is not installed (it is an optional extra), or broken.
    """
    return _behind_torchvision("timm")


def fvcore() -> ModuleType:
    """Import `fvcore.nn`, which counts multiply-accumulates and activations.

    Raises:
        UsageError: it is not installed, or broken.
    """
    with _IMPORTING, silenced("`torch.jit.script` is deprecated"):
        return _fresh_import("fvcore.nn")


def torch_pruning() -> ModuleType:
    """Import torch-pruning, which scores channels, and is compared with.

    Raises:
        UsageError: it is not installed, or broken.
    """
    return _behind_torchvision("torch_pruning")


def _behind_torchvision(name: str) -> ModuleType:
    """Import a package that imports torchvision itself."""
    torchvision()
    try:
        with _IMPORTING:
            return _fresh_import(name)
    except RuntimeError as error:
        raise UsageError(_broken(name, str(error))) from error


def _fresh_import(name: str) -> ModuleType:
    """Import a package, without what an earlier import that failed half-way may have left of it."""
    package = name.partition(".")[0]
    if name not in sys.modules:
        for leftover in [module for module in sys.modules if module.startswith(f"{name}.")]:
            del sys.modules[leftover]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in (name, package):
            raise UsageError(_broken(package, str(error))) from error
        raise UsageError(f"{package} is not installed; {_INSTALL[package]}") from error
    except (ImportError, OSError, AttributeError) as error:
        raise UsageError(_broken(package, str(error))) from error


def _declare_missing_operator(error: RuntimeError) -> None:
    """Declare the operator that an import of torchvision stumbled over."""
    found = re.search(r"operator torchvision::(\w+) does not exist", str(error))
    if found is None or found[1] not in _SCHEMAS:
        raise UsageError(_broken("torchvision", str(error))) from error
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(_SCHEMAS[found[1]])
    _declarations.append(library)


def _broken(name: str, reason: str) -> str:
    first_line = (reason.strip() or "no reason given").splitlines()[0]
    advice = f"reinstall it to match torch {torch.__version__}"
    return f"{name} is installed but cannot be imported ({first_line}); {advice}"
