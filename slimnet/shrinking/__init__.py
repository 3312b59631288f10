"""Training that gets cheaper as filters die, and is the same training as with these filters at zero."""

from slimnet.shrinking.invariant_set import InvariantSet, Stays, find_invariant_set
from slimnet.shrinking.projection import Projected, Projection, project
from slimnet.shrinking.shrinker import Cut, Shrinker

__all__ = ["Cut", "InvariantSet", "Projected", "Projection", "Shrinker", "Stays", "find_invariant_set", "project"]
