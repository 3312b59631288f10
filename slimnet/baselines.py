"""The names that `slimnet.methods` had before: scripts that use them go on."""

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
    silenced,
)
from slimnet.methods import remove_selected as remove
from slimnet.methods import score_channels as rank
from slimnet.methods import select_within_budget as within

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
