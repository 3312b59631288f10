"""Liveness: which values the network's outputs depend on, by a backward pass over the graph."""

from dataclasses import dataclass

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph, Depthwise, Reader
from slimnet.graph.labels import Labels
from slimnet.planning.constants import ELEMENTWISE, zero_rows


@dataclass(frozen=True)
class Needs:
    """The values that the outputs depend on: `live[label]`, and `reads[i][k]` for input k of reader i."""

    live: np.ndarray
    reads: tuple[np.ndarray, ...]


def needs(graph: ChannelGraph, constants: np.ndarray, dead_outputs: Labels) -> Needs:
    """Backward pass from the outputs: a value is live if a live value is computed from it.

    A constant depends only on constants (zeros included, which must stay zero): with γ = 0 the input of a BatchNorm is
    not live, and a layer all of whose outputs are constant reads nothing that varies. A channel that was measured to be
    zero (`dead_outputs`) stays zero only as long as everything it is computed from is kept.
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
