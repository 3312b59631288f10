"""Training that gets cheaper as filters die, and is the same training as with these filters at zero."""

from slimnet.shrinking.dense_shape import DenseShape
from slimnet.shrinking.invariant_set import InvariantSet, Stays, find_invariant_set
from slimnet.shrinking.projection import Projected, Projection, project
from slimnet.shrinking.projection_change import Change
from slimnet.shrinking.projection_record import ProjectionAt, ProjectionRecord
from slimnet.shrinking.shrinker import Cut, Shrinker

__all__ = [
    "Change",
    "Cut",
    "DenseShape",
    "InvariantSet",
    "Projected",
    "Projection",
    "ProjectionAt",
    "ProjectionRecord",
    "Shrinker",
    "Stays",
    "find_invariant_set",
    "project",
]
