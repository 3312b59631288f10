"""Offline HTML pages: about a slimmed network the verdict and the evidence, about a training run how it went."""

from slimnet.report.content import Report, Training
from slimnet.report.page import render, write_report
from slimnet.report.training_page import render_training, write_training_report
from slimnet.report.training_record import TrainingRecord

__all__ = [
    "Report",
    "Training",
    "TrainingRecord",
    "render",
    "render_training",
    "write_report",
    "write_training_report",
]
