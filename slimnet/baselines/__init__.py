"""Methods that choose channels, for the same surgery to remove: ours, and those that it is compared with."""

from slimnet.baselines.budget import Budget, within
from slimnet.baselines.ranking import METHODS, Ranking, rank
from slimnet.baselines.selection import Selection, remove, silenced

__all__ = ["METHODS", "Budget", "Ranking", "Selection", "rank", "remove", "silenced", "within"]
