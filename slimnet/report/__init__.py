"""Offline HTML pages: the verdict and the evidence about a slimmed network, about methods, about a training run."""

from slimnet.report.content import Report, Training
from slimnet.report.methods_page import render_methods, write_methods_report
from slimnet.report.page import render, write_report
from slimnet.report.training_page import render_training, write_training_report
from slimnet.report.training_record import TrainingRecord

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
