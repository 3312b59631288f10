"""Methods of choosing channels, all of which use the same surgery: slimnet's, and those that it is compared with."""

from slimnet.methods.budget import Budget, select_within_budget
from slimnet.methods.li2017_recipes import RECIPES, published
from slimnet.methods.network_slimming import Pass, passes
from slimnet.methods.remove import Selection, plan_for, remove_selected, silenced
from slimnet.methods.scores import METHODS, Ranking, score_channels
from slimnet.methods.synthetic_images import synthesise_images

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
    "remove_selected",
    "score_channels",
    "select_within_budget",
    "silenced",
    "synthesise_images",
]
