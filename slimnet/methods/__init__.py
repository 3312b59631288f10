"""Methods of choosing channels, all of which use the same surgery: slimnet's, and those that it is compared with."""

import warnings
from typing import Any

from slimnet.methods.budget import Budget, select_within_budget
from slimnet.methods.li2017_recipes import RECIPES, published
from slimnet.methods.network_slimming import Pass, passes
from slimnet.methods.remove import Selection, mask_selected, plan_for, remove_selected
from slimnet.methods.scores import METHODS, Ranking, score_channels
from slimnet.methods.synthetic_images import synthesise_images

__all__ = [
    "METHODS",
    "RECIPES",
    "Budget",
    "Pass",
    "Ranking",
    "Selection",
    "mask_selected",
    "passes",
    "plan_for",
    "published",
    "remove_selected",
    "score_channels",
    "select_within_budget",
    "synthesise_images",
]


def __getattr__(name: str) -> Any:
    """A name that was public before, with a warning."""
    if name != "silenced":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        "slimnet.methods.silenced is now mask_selected; it is removed in 0.3", DeprecationWarning, stacklevel=2
    )
    return mask_selected
