"""The relative time of the layers that write or read channel sets, by the number of channels that are kept."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph, Depthwise, Reader
from slimnet.graph.labels import Labels
from slimnet.planning.width_prices import WidthPrices

SPATIAL, POINTWISE, LINEAR = range(3)


class Times(NamedTuple):
    """The relative times of all widths from 0, `(C + 1,)`, and the standard error of one of them, relative to it."""

    times: np.ndarray
    error: float


def times_of_rows(
    graph: ChannelGraph, sets: np.ndarray, rows: Sequence[np.ndarray], prices: WidthPrices
) -> list[Times]:
    """For each row of sets the relative time of its layers at all widths.

    `sets` is the set of every label. The multiply-accumulates of a layer count for every row that it writes or reads,
    for each channel the same number; a layer that reads several rows, such as a concatenation of them, counts for each
    by its share. With a depthwise convolution among the layers of a row all of them have the price of such a block.
    """
    macs = np.zeros((len(rows), 3))
    in_block = np.zeros(len(rows), dtype=bool)
    finder = RowFinder(sets, rows)
    for layer in graph.layers:
        for labels in (layer.outputs,) if isinstance(layer, Depthwise) else (layer.outputs, layer.inputs):
            for row, share in finder.shares(labels):
                if isinstance(layer, Depthwise):
                    in_block[row] = True
                else:
                    macs[row, kernel_of(layer)] += layer.macs * share / rows[row].size
    return [times_of(row.size, macs[number], in_block[number], prices) for number, row in enumerate(rows)]


def times_of(width: int, macs: np.ndarray, in_block: bool, prices: WidthPrices) -> Times:
    """The times of a row at all widths up to its own, for the multiply-accumulates of one channel by kernel `(3,)`."""
    if in_block:
        return Times(np.arange(width + 1) * prices.depthwise.up_to(width), prices.depthwise.error)
    linear = np.full(width + 1, prices.pointwise.prices[-1])
    price = macs @ np.stack([prices.spatial.up_to(width), prices.pointwise.up_to(width), linear])
    used = zip(macs.tolist(), (prices.spatial.error, prices.pointwise.error, 0.0), strict=True)
    return Times(np.arange(width + 1) * price, max(error if work else 0.0 for work, error in used))


def kernel_of(layer: Reader) -> int:
    """The kind of a layer's kernel."""
    if layer.kind == "linear":
        return LINEAR
    return POINTWISE if layer.value().shape[2:].numel() == 1 else SPATIAL


class RowFinder:
    """Finds the rows to which labels belong."""

    def __init__(self, sets: np.ndarray, rows: Sequence[np.ndarray]) -> None:
        self._sets, self._count = sets, len(rows)
        self._numbers = {key_of(row): number for number, row in enumerate(rows)}
        self._owner = np.full(int(sets.max(initial=0)) + 1, len(rows))
        for number, row in enumerate(rows):
            self._owner[row] = number

    def shares(self, labels: Labels) -> list[tuple[int, float]]:
        """The rows of some labels, and the share of the labels that belongs to each."""
        found = self._sets[labels]
        exact = self._numbers.get(key_of(found))
        if exact is not None:
            return [(exact, 1.0)]
        counts = np.bincount(self._owner[found], minlength=self._count + 1)[: self._count]
        return [(int(number), counts[number] / found.size) for number in np.flatnonzero(counts)]


def key_of(sets: np.ndarray) -> bytes:
    """A key that is equal for rows of the same sets."""
    return np.sort(sets, axis=None).tobytes()
