"""Carriers: kept channels into whose weights the constants of removed channels of the same group are merged."""

import numpy as np

from slimnet.graph.channel_graph import Reader
from slimnet.planning.removal import Removal


def carrier_groups(reader: Reader) -> np.ndarray:
    """The input positions `(groups, inputs per group)`; a carrier serves its own group only."""
    return np.arange(reader.inputs.size).reshape(reader.groups, -1)


LEAST_CARRIED = 0.1
"""The smallest constant of a carrier, as a fraction of the largest constant that it carries.

A carrier's weights grow by the ratio of the two. A factor of ten is the limit because int8 quantisation has one scale
for a whole weight: larger factors would cost the other weights their precision.
"""


def common_constants(removal: Removal, reader: Reader) -> np.ndarray:
    """The constants that a reader reads; NaN where unknown, or where another call with the same weight differs."""
    values = removal.constants[reader.inputs]
    for other, reads in removal.problem.tied.get(reader.weight or "", ()):
        if reads.any():
            values = np.where(removal.constants[other.inputs] == values, values, np.nan)
    return values


def carrier(removal: Removal, reader: Reader, group: np.ndarray, reads: np.ndarray) -> int | None:
    """The position in a group of inputs of its carrier: the channel, kept and read, with the largest constant.

    None if that constant is smaller than `LEAST_CARRIED` allows; a constant near zero may be a rounding error.
    """
    values = np.abs(np.nan_to_num(common_constants(removal, reader)[group]))
    removed, reads = removal.is_removed(reader.inputs[group]), reads[group]
    least = LEAST_CARRIED * values[removed & reads].max(initial=0.0)
    values[removed | ~reads] = 0.0
    best = int(np.argmax(values))
    return best if values[best] > least else None
