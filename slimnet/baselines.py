"""The names that `slimnet.methods` had before: scripts that use them go on, with a warning, until 0.3."""

import warnings

from slimnet.methods import (
    METHODS,
    RECIPES,
    Budget,
    Pass,
    Ranking,
    Selection,
    passes,
    plan_for,
    published,
)
from slimnet.methods import mask_selected as silenced
from slimnet.methods import remove_selected as remove
from slimnet.methods import score_channels as rank
from slimnet.methods import select_within_budget as within

warnings.warn("slimnet.baselines is now slimnet.methods; it goes in 0.3", DeprecationWarning, stacklevel=2)

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
