"""Means and maxima over all channels of an axis, which depend on how many there are.

Where zeros go from a mean of C channels and C' are left, it becomes C / C' times as large: whoever reads it makes its
weights C' / C times as large. A maximum stays what it was as long as the largest of the constants stays.
"""

from collections.abc import Sequence

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph, ChannelReduction, Depthwise, Reader
from slimnet.graph.labels import Labels


def staying(graph: ChannelGraph, constants: np.ndarray, total: ChannelReduction) -> Labels:
    """The channels that have to stay for the sake of what is made of them."""
    values = constants[total.rows]
    if total.kind == "max":
        stays = np.isnan(values) | (total.places is not None and is_used(graph, total.places))
    else:
        stays = ~(values == 0) | (total.kind == "mean" and scaled_readers(graph, total) is None)
    return total.rows[stays]


def never_going(graph: ChannelGraph) -> Labels:
    """Labels of channels that can never go, whatever their values."""
    zeros = np.zeros(graph.size)
    return np.concatenate([graph.fixed, *(staying(graph, zeros, total) for total in graph.sums)])


def is_used(graph: ChannelGraph, places: Labels) -> bool:
    """Whether anything looks at where the largest values stand."""
    read = any(np.isin(places, layer.inputs).any() for layer in graph.layers)
    return read or computed_with(graph, places) or pins_of(graph, places) > 0


def scaled_readers(graph: ChannelGraph, total: ChannelReduction) -> list[tuple[Reader, int]] | None:
    """The layers that read a mean, with its position among their inputs; None where anything else is done with it."""
    found = []
    for reader in graph.readers:
        for place in np.flatnonzero(np.isin(reader.inputs, total.out)).tolist():
            if reader.weight is None or sum(other.weight == reader.weight for other in graph.readers) > 1:
                return None
            found.append((reader, place))
    # The pin is that of the mean itself.
    return None if computed_with(graph, total.out) or pins_of(graph, total.out) > 1 else found


def computed_with(graph: ChannelGraph, labels: Labels) -> bool:
    """Whether an op computes with some labels, or joins them to others."""
    if any(np.count_nonzero(graph.sets == number) > 1 for number in graph.sets[labels]):
        return True
    if any(np.isin(labels, total.rows).any() for total in graph.sums):
        return True
    return any(np.isin(labels, operand).any() for operand in operands(graph))


def operands(graph: ChannelGraph) -> Sequence[Labels]:
    """What every step but a layer that mixes channels computes with."""
    found: list[Labels] = []
    for step in graph.steps:
        if isinstance(step, Depthwise):
            found.append(step.inputs)
        elif not isinstance(step, Reader):
            found += step.operands
    return found


def pins_of(graph: ChannelGraph, labels: Labels) -> int:
    """How often some labels are pinned."""
    return sum(bool(np.isin(labels, pin.labels).any()) for pin in graph.pins)
