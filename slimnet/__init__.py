"""Make trained convolutional networks smaller without changing what they compute."""

from slimnet.bundle import Verification, load, save, verify_bundle
from slimnet.certify import Certificate, certify
from slimnet.checkpoint import load_checkpoint
from slimnet.errors import SlimnetError
from slimnet.export import OnnxExport, export_onnx
from slimnet.inspection import Inspection, inspect
from slimnet.models.architecture import build
from slimnet.pipeline import Slimmed, slim
from slimnet.plan import SurgeryPlan
from slimnet.surgery import apply_plan

__version__ = "0.1.0"

__all__ = [
    "Certificate",
    "Inspection",
    "OnnxExport",
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
