"""Methods that choose channels, for the same surgery to remove: ours, and those that it is compared with."""

from slimnet.methods.budget import Budget, within
from slimnet.methods.li2017_recipes import RECIPES, published
from slimnet.methods.network_slimming import Pass, passes
from slimnet.methods.remove import Selection, plan_for, remove, silenced
from slimnet.methods.scores import METHODS, Ranking, rank

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
