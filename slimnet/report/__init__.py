"""Offline HTML pages about slimmed networks, methods, training runs and the reproduction of the paper."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimnet.report.methods.page import render_methods, write_methods_report
    from slimnet.report.network.content import Report, Training
    from slimnet.report.network.page import render, write_report
    from slimnet.report.training.page import render_training, write_training_report
    from slimnet.report.training.record import TrainingRecord

__all__ = [
    "Report",
    "Training",
    "TrainingRecord",
    "render",
    "render_methods",
    "render_training",
    "write_methods_report",
    "write_report",
    "write_training_report",
]

_ON_DEMAND = {
    "Report": "slimnet.report.network.content",
    "Training": "slimnet.report.network.content",
    "TrainingRecord": "slimnet.report.training.record",
    "render": "slimnet.report.network.page",
    "render_methods": "slimnet.report.methods.page",
    "render_training": "slimnet.report.training.page",
    "write_methods_report": "slimnet.report.methods.page",
    "write_report": "slimnet.report.network.page",
    "write_training_report": "slimnet.report.training.page",
}
"""The modules of these names. Pages need matplotlib and jinja2, the formatting of numbers on a terminal does not."""


def __dir__() -> list[str]:
    """The names of this package, those that are imported on demand included."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for."""
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_ON_DEMAND[name]), name)
    globals()[name] = found
    return found
