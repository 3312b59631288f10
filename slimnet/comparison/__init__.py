"""Comparison of methods of choosing channels under the same conditions: size, error and speed of slim networks."""

from slimnet.comparison.outcome import Dense, Failure, Outcome, Results, Size
from slimnet.comparison.settings import Cell, Settings
from slimnet.comparison.study import Study, StudyProgress

__all__ = ["Cell", "Dense", "Failure", "Outcome", "Results", "Settings", "Size", "Study", "StudyProgress"]
