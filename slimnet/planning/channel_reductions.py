"""Channel reductions: means and maxima over all channels of an axis, which depend on how many channels there are.

Removing zeros from a mean over C channels, so that C' remain, multiplies the mean by C / C'. The weights of its readers
are multiplied by C' / C to compensate. A maximum is unchanged as long as the largest of the constants is kept. What a
constant adds to the mean and variance of a LayerNorm becomes part of the LayerNorm.
"""

from collections.abc import Sequence

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph, ChannelReduction, Depthwise, Reader
from slimnet.graph.labels import Labels


def staying(graph: ChannelGraph, constants: np.ndarray, total: ChannelReduction) -> Labels:
    """The reduced channels that cannot be removed, because the result would change in a way that is not compensated."""
    values = constants[total.rows]
    if total.kind == "moments":
        stays = np.isnan(values)
    elif total.kind == "max":
        stays = np.isnan(values) | (total.indices is not None and is_used(graph, total.indices))
    else:
        stays = ~(values == 0) | (total.kind == "mean" and scaled_readers(graph, total) is None)
    return total.rows[stays]


def never_going(graph: ChannelGraph) -> Labels:
    """Labels of channels that can never be removed, whatever their values."""
    zeros = np.zeros(graph.size)
    return np.concatenate([graph.fixed, *(staying(graph, zeros, total) for total in graph.sums)])


def is_used(graph: ChannelGraph, indices: Labels) -> bool:
    """Whether an op reads the indices of the largest values."""
    read = any(np.isin(indices, layer.inputs).any() for layer in graph.layers)
    return read or computed_with(graph, indices) or pins_of(graph, indices) > 0


def scaled_readers(graph: ChannelGraph, total: ChannelReduction) -> list[tuple[Reader, int]] | None:
    """The layers that read a mean, with its position among their inputs; None if any other op reads it."""
    found = []
    for reader in graph.readers:
        for place in np.flatnonzero(np.isin(reader.inputs, total.out)).tolist():
            shared = sum(other.weight == reader.weight for other in graph.readers) > 1
            if reader.weight is None or shared or reader.weight in graph.read_elsewhere:
                return None
            found.append((reader, place))
    # The pin is that of the mean itself.
    return None if computed_with(graph, total.out) or pins_of(graph, total.out) > 1 else found


def computed_with(graph: ChannelGraph, labels: Labels) -> bool:
    """Whether an op other than a reader uses these labels, or joins them to others."""
    if any(np.count_nonzero(graph.sets == number) > 1 for number in graph.sets[labels]):
        return True
    if any(np.isin(labels, total.rows).any() for total in graph.sums):
        return True
    return any(np.isin(labels, operand).any() for operand in operands(graph))


def operands(graph: ChannelGraph) -> Sequence[Labels]:
    """The operands of every step except the readers."""
    found: list[Labels] = []
    for step in graph.steps:
        if isinstance(step, Depthwise):
            found.append(step.inputs)
        elif not isinstance(step, Reader):
            found += step.operands
    return found


def pins_of(graph: ChannelGraph, labels: Labels) -> int:
    """The number of pins that contain one of these labels."""
    return sum(bool(np.isin(labels, pin.labels).any()) for pin in graph.pins)
