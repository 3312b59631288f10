"""Compare methods of choosing channels, like for like: what each leaves, at what error, and how fast it is."""

from slimnet.comparison.outcome import Dense, Outcome, Results, Size
from slimnet.comparison.settings import Cell, Settings
from slimnet.comparison.study import Study, StudyProgress

__all__ = ["Cell", "Dense", "Outcome", "Results", "Settings", "Size", "Study", "StudyProgress"]
