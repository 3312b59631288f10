"""One offline HTML page about a slimmed network: the verdict, the evidence, and the figures."""

from slimnet.report.content import Report, Training
from slimnet.report.page import render, write_report

__all__ = ["Report", "Training", "render", "write_report"]
