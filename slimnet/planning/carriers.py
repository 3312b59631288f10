"""Carriers: channels that stay, and whose weights take over the constants of removed ones of the same group."""

import numpy as np

from slimnet.graph.channel_graph import Reader
from slimnet.planning.removal import Removal


def carrier_groups(reader: Reader) -> np.ndarray:
    """The input positions of each group, one row a group: a carrier serves its own group only."""
    return np.arange(reader.inputs.size).reshape(reader.groups, -1)


LEAST_CARRIED = 0.1
"""How large a carrier's constant must be, as a part of the largest that it carries.

A carrier's weights grow by the ratio of the two. Ten times is more than enough: int8 and float16 have one scale for
what may be a thousand weights.
"""


def common_constants(removal: Removal, reader: Reader) -> np.ndarray:
    """The constants that a reader reads, NaN also where another call with its weight reads something else."""
    values = removal.constants[reader.inputs]
    for other, reads in removal.problem.tied.get(reader.weight or "", ()):
        if reads.any():
            values = np.where(removal.constants[other.inputs] == values, values, np.nan)
    return values


def carrier(removal: Removal, reader: Reader, group: np.ndarray, reads: np.ndarray) -> int | None:
    """The position in a group of inputs of the kept and read channel with the largest constant, if it can carry others.

    It must not be much smaller than what it carries, see `LEAST_CARRIED`; what is nearly zero may be only rounding.
    """
    values = np.abs(np.nan_to_num(common_constants(removal, reader)[group]))
    gone, reads = removal.gone(reader.inputs[group]), reads[group]
    least = LEAST_CARRIED * values[gone & reads].max(initial=0.0)
    values[gone | ~reads] = 0.0
    best = int(np.argmax(values))
    return best if values[best] > least else None
