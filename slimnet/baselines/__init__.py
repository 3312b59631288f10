"""Methods that choose channels, for the same surgery to remove: ours, and those that it is compared with."""

from slimnet.baselines.budget import Budget, within
from slimnet.baselines.passes import Pass, passes
from slimnet.baselines.published import RECIPES, published
from slimnet.baselines.ranking import METHODS, Ranking, rank
from slimnet.baselines.selection import Selection, plan_for, remove, silenced

__all__ = [
    "METHODS",
    "RECIPES",
    "Budget",
    "Pass",
    "Ranking",
    "Selection",
    "passes",
    "plan_for",
    "published",
    "rank",
    "remove",
    "silenced",
    "within",
]
