"""Make trained convolutional networks smaller without changing what they compute."""

from slimnet.certify import Certificate, certify
from slimnet.errors import SlimnetError
from slimnet.inspection import Inspection, inspect
from slimnet.pipeline import Slimmed, slim
from slimnet.plan import SurgeryPlan
from slimnet.surgery import apply_plan

__version__ = "0.1.0"

__all__ = [
    "Certificate",
    "Inspection",
    "Slimmed",
    "SlimnetError",
    "SurgeryPlan",
    "apply_plan",
    "certify",
    "inspect",
    "slim",
]
