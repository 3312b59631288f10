"""Make trained convolutional networks smaller without changing what they compute."""

import logging
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from slimnet.errors import SlimnetError
from slimnet.version import __version__ as __version__

if TYPE_CHECKING:
    from slimnet.bundle.bundle import Verification, load, save, verify_bundle
    from slimnet.bundle.push import push_to_hub
    from slimnet.checkpoint import load_checkpoint
    from slimnet.data.image_spec import ImageSpec
    from slimnet.export.executorch import export_executorch
    from slimnet.export.int8.export import export_int8
    from slimnet.export.ncnn import export_ncnn
    from slimnet.export.onnx import OnnxExport, export_onnx
    from slimnet.export.openvino import export_openvino
    from slimnet.export.pt2.export import export_pt2
    from slimnet.inspection import Inspection, inspect
    from slimnet.models.architecture import build
    from slimnet.monitor import Monitor
    from slimnet.onnx_slimming.slim_onnx import SlimmedOnnx, slim_onnx
    from slimnet.pipeline import slim
    from slimnet.shrinking import Shrinker
    from slimnet.slimmed import Slimmed
    from slimnet.surgery.apply_plan import apply_plan
    from slimnet.surgery.certificate import certify
    from slimnet.surgery.certificate_data import Certificate
    from slimnet.surgery.plan import SurgeryPlan

logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "Certificate",
    "ImageSpec",
    "Inspection",
    "Monitor",
    "OnnxExport",
    "Shrinker",
    "Slimmed",
    "SlimmedOnnx",
    "SlimnetError",
    "SurgeryPlan",
    "Verification",
    "apply_plan",
    "build",
    "certify",
    "export_executorch",
    "export_int8",
    "export_ncnn",
    "export_onnx",
    "export_openvino",
    "export_pt2",
    "inspect",
    "load",
    "load_checkpoint",
    "push_to_hub",
    "save",
    "slim",
    "slim_onnx",
    "verify_bundle",
]

_ON_DEMAND = {
    "Certificate": "slimnet.surgery.certificate_data",
    "ImageSpec": "slimnet.data.image_spec",
    "Inspection": "slimnet.inspection",
    "Monitor": "slimnet.monitor",
    "OnnxExport": "slimnet.export.onnx",
    "Shrinker": "slimnet.shrinking",
    "Slimmed": "slimnet.slimmed",
    "SlimmedOnnx": "slimnet.onnx_slimming.slim_onnx",
    "SurgeryPlan": "slimnet.surgery.plan",
    "Verification": "slimnet.bundle.bundle",
    "apply_plan": "slimnet.surgery.apply_plan",
    "build": "slimnet.models.architecture",
    "certify": "slimnet.surgery.certificate",
    "export_executorch": "slimnet.export.executorch",
    "export_int8": "slimnet.export.int8.export",
    "export_ncnn": "slimnet.export.ncnn",
    "export_onnx": "slimnet.export.onnx",
    "export_openvino": "slimnet.export.openvino",
    "export_pt2": "slimnet.export.pt2.export",
    "inspect": "slimnet.inspection",
    "load": "slimnet.bundle.bundle",
    "load_checkpoint": "slimnet.checkpoint",
    "push_to_hub": "slimnet.bundle.push",
    "save": "slimnet.bundle.bundle",
    "slim": "slimnet.pipeline",
    "slim_onnx": "slimnet.onnx_slimming.slim_onnx",
    "verify_bundle": "slimnet.bundle.bundle",
}
"""The modules of the public names. Each of them imports torch, which takes seconds: a wrong path on the command line is
reported before that."""


def __dir__() -> list[str]:
    """The public names, those that are imported on demand included."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import a public name, or a module of this package, when it is first asked for."""
    if name in _ON_DEMAND:
        found = getattr(import_module(_ON_DEMAND[name]), name)
    elif not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        found = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found
