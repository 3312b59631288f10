"""What is needed of the network's values: a walk back from the outputs."""

from dataclasses import dataclass

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph, Depthwise, Reader
from slimnet.graph.labels import Labels
from slimnet.planning.constants import ELEMENTWISE, zero_rows


@dataclass(frozen=True)
class Needs:
    """What is needed of the network's values: `live[label]`, and `reads[i][k]` for input k of reader i."""

    live: np.ndarray
    reads: tuple[np.ndarray, ...]


def needs(graph: ChannelGraph, constants: np.ndarray, dead_outputs: Labels) -> Needs:
    """Walk back from the outputs: a value is needed if something needs what is computed from it.

    A constant needs only the constants it is computed from (zeros too: they must stay zero): with γ = 0 the input of
    a BatchNorm is not needed, and a layer all of whose outputs are constant reads nothing that varies. What was only
    seen to be zero (`dead_outputs`) stays so as long as all it is computed from stays.
    """
    live = np.zeros(graph.size, dtype=bool)
    fixed = ~np.isnan(constants)
    moving = ~fixed
    moving[dead_outputs] = True
    for pin in graph.pins:
        live[pin.labels] = True
    for total in graph.sums:
        live[total.rows] = True
    reads: list[np.ndarray] = []
    for step in reversed(graph.steps):
        if isinstance(step, ELEMENTWISE):
            needed = live[step.out]
            if np.count_nonzero(needed):
                moved = moving[step.out]
                for operand in step.operands:
                    live[operand[needed & (moved | fixed[operand])]] = True
        elif isinstance(step, Depthwise):
            inputs = np.repeat(step.inputs, step.outputs.size // step.inputs.size)
            live[inputs[live[step.outputs] & (~fixed[step.outputs] | fixed[inputs])]] = True
        else:
            read = columns_read(step, live[step.outputs])
            live[step.inputs[read]] = True
            reads.append(read)
    return Needs(live, tuple(reversed(reads)))


def columns_read(reader: Reader, rows: np.ndarray) -> np.ndarray:
    """Which inputs `(K,)` reach one of the given output rows `(O,)` through a nonzero weight."""
    return ~zero_rows(reader.grouped_numbers().swapaxes(1, 2), rows.reshape(reader.groups, -1)).reshape(-1)
