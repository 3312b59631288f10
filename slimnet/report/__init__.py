"""Offline HTML pages about slimmed networks, methods, training runs and the reproduction of the paper."""

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
