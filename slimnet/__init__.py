"""Make trained convolutional networks smaller without changing what they compute."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from slimnet.checkpoint import load_checkpoint
from slimnet.errors import SlimnetError
from slimnet.inspection import Inspection, inspect
from slimnet.models.architecture import build
from slimnet.monitor import Monitor
from slimnet.pipeline import slim
from slimnet.slimmed import Slimmed
from slimnet.surgery.apply_plan import apply_plan
from slimnet.surgery.certificate import Certificate, certify
from slimnet.surgery.plan import SurgeryPlan
from slimnet.version import __version__ as __version__

if TYPE_CHECKING:
    from slimnet.bundle.bundle import Verification, load, save, verify_bundle
    from slimnet.export.onnx import OnnxExport, export_onnx
    from slimnet.shrinking import Shrinker

__all__ = [
    "Certificate",
    "Inspection",
    "Monitor",
    "OnnxExport",
    "Shrinker",
    "Slimmed",
    "SlimnetError",
    "SurgeryPlan",
    "Verification",
    "apply_plan",
    "build",
    "certify",
    "export_onnx",
    "inspect",
    "load",
    "load_checkpoint",
    "save",
    "slim",
    "verify_bundle",
]

_ON_DEMAND = {
    **dict.fromkeys(("Verification", "load", "save", "verify_bundle"), "slimnet.bundle.bundle"),
    **dict.fromkeys(("OnnxExport", "export_onnx"), "slimnet.export.onnx"),
    "Shrinker": "slimnet.shrinking",
}


def __dir__() -> list[str]:
    """The public names, those that are imported on demand included."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import what not everybody needs, and what takes a second (onnx, torch.export), only when it is asked for."""
    if name not in _ON_DEMAND:
        raise AttributeError(f"module 'slimnet' has no attribute {name!r}")
    return getattr(import_module(_ON_DEMAND[name]), name)
