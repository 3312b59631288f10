"""Grouped convolutions: keep equal parts, or pack the live channels into fewer groups.

A grouped convolution needs the same number of channels in every group, but each group has another number of live ones.
If nothing else depends on the order of its input and output channels, the live blocks of several old groups can share
one new group, with zeros between them; dead groups are removed.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph, Reader, SplitAxis
from slimnet.graph.reasons import Kind, Reason
from slimnet.planning.removal import Division, Problem, Removal
from slimnet.planning.width_rounding import AllowedWidths

MAX_SIZES = 6
"""The number of group sizes tried along each axis, from the smallest that fits to the old one."""

MOST_FOR_ROUND_GROUPS = 2.0
"""How many times the weights of the cheapest groups a choice may have that makes the width round."""


@dataclass(frozen=True)
class Packing:
    """The groups of one convolution after packing: `bins[g]` are the old groups that new group `g` holds.

    `inputs` and `outputs` are set numbers in their new order, `len(bins)` equal runs each.
    """

    reader: int
    bins: tuple[tuple[int, ...], ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def grouped(graph: ChannelGraph) -> Iterator[tuple[int, Reader]]:
    """The grouped convolutions with their indices among the readers."""
    for index, reader in enumerate(graph.readers):
        if reader.groups > 1:
            yield index, reader


def equal_parts(problem: Problem, packable: set[int]) -> tuple[Division, ...]:
    """The divisions whose parts must stay equal: every split axis, and convolution groups that cannot be packed."""
    sets = problem.sets.astype(np.int64, copy=False)
    axes = ((parts, problem.axis_of(parts)) for parts in problem.graph.parts)
    found = [Division(sets[parts.along(axis)], why_equal(problem, parts)) for parts, axis in axes if axis is not None]
    for index, reader in grouped(problem.graph):
        if index not in packable:
            for labels in (reader.inputs, reader.outputs):
                rows = sets[labels].reshape(reader.groups, -1)
                found.append(Division(rows, Reason(Kind.EQUAL_GROUPS, reader.at)))
    return tuple(found)


def why_equal(problem: Problem, parts: SplitAxis) -> Reason:
    """Why channels of a split axis are kept: its parts must be equal, or a retrace found a hard-coded size.

    In the second case the axis can still be cut into fewer parts.
    """
    return problem.blamed.get(parts.op, Reason(Kind.EQUAL_PARTS, parts.where))


def find_packable(removal: Removal) -> set[int]:
    """Grouped convolutions whose input and output channels may be put in any order."""
    graph, sets = removal.graph, removal.sets
    ordered = np.zeros(removal.removed.size, dtype=bool)
    ordered |= removal.problem.pinned
    for parts in graph.parts:
        ordered[sets[parts.rows]] = True
    for padding in graph.paddings:
        ordered[sets[padding]] = True
    uses: Counter[int] = Counter()
    sides = {}
    for index, reader in grouped(graph):
        sides[index] = np.concatenate([sets[reader.inputs], sets[reader.outputs]])
        uses.update(sides[index].tolist())
    shared = Counter(reader.weight for reader in graph.readers)
    return {
        index
        for index, reader in grouped(graph)
        if reader.weight is not None
        and shared[reader.weight] == 1
        and not ordered[sides[index]].any()
        and all(uses[number] == 1 for number in sides[index].tolist())
    }


def packed_sets(removal: Removal, packable: set[int]) -> np.ndarray:
    """The sets of packable convolutions, whose number `pack` determines."""
    readers = [removal.graph.readers[index] for index in packable]
    sides = [removal.sets[labels] for reader in readers for labels in (reader.inputs, reader.outputs)]
    return np.concatenate(sides) if sides else np.zeros(0, dtype=np.int64)


def pack(removal: Removal, packable: set[int], allowed: AllowedWidths) -> tuple[list[Packing], Removal]:
    """New groups for every packable convolution, and the removal after channels are restored to fill them."""
    packings = []
    for index, reader in grouped(removal.graph):
        if index in packable:
            inputs = removal.sets[reader.inputs].reshape(reader.groups, -1)
            outputs = removal.sets[reader.outputs].reshape(reader.groups, -1)
            bins, width, height = best_groups(removal, inputs, outputs, allowed)
            reason = Reason(Kind.FILLS_GROUP, reader.at)
            inputs_left, removal = fill_bins(removal, inputs, bins, width, reason)
            outputs_left, removal = fill_bins(removal, outputs, bins, height, reason)
            packings.append(Packing(index, tuple(bins), inputs_left, outputs_left))
    return packings, removal


def best_groups(
    removal: Removal, inputs: np.ndarray, outputs: np.ndarray, allowed: AllowedWidths
) -> tuple[list[tuple[int, ...]], int, int]:
    """The bins and group sizes `(inputs, outputs)` that cost the fewest weights.

    Each group keeps at least one input and one output, so every live block fits into a bin of at least that size. If
    both widths can be allowed ones at no more than twice the cost, they are.
    """
    live_in = (~removal.removed[inputs]).sum(1)
    live_out = (~removal.removed[outputs]).sum(1)
    in_cost = removal.weight[inputs].mean()
    out_cost = removal.weight[outputs].mean()
    blocks = [j for j in range(len(inputs)) if live_in[j] or live_out[j]] or [0]
    best: dict[bool, tuple[float, list[tuple[int, ...]], int, int]] = {}
    for width in sizes(max(1, int(live_in.max())), inputs.shape[1]):
        for height in sizes(max(1, int(live_out.max())), outputs.shape[1]):
            bins = first_fit(blocks, live_in, live_out, width, height)
            cost = len(bins) * (9 * width * height + width * in_cost + height * out_cost)
            is_round = allowed.allows(inputs, len(bins) * width) and allowed.allows(outputs, len(bins) * height)
            if is_round not in best or cost < best[is_round][0]:
                best[is_round] = (cost, bins, width, height)
    cheapest = min(best.values(), key=lambda found: found[0])
    if True in best and best[True][0] <= MOST_FOR_ROUND_GROUPS * cheapest[0]:
        cheapest = best[True]
    return cheapest[1:]


def sizes(smallest: int, largest: int) -> list[int]:
    """A few group sizes between two bounds, both included."""
    return sorted({int(size) for size in np.linspace(smallest, largest, MAX_SIZES)})


def first_fit(
    blocks: list[int], live_in: np.ndarray, live_out: np.ndarray, width: int, height: int
) -> list[tuple[int, ...]]:
    """Two-dimensional bin packing: the largest blocks first, each into the first bin with room for it."""
    bins: list[list[int]] = []
    room: list[list[int]] = []
    for block in sorted(blocks, key=lambda j: (-max(live_in[j] / width, live_out[j] / height), j)):
        for members, space in zip(bins, room, strict=True):
            if space[0] >= live_in[block] and space[1] >= live_out[block]:
                members.append(block)
                space[0] -= live_in[block]
                space[1] -= live_out[block]
                break
        else:
            bins.append([block])
            room.append([width - live_in[block], height - live_out[block]])
    return sorted(tuple(sorted(members)) for members in bins)


def fill_bins(
    removal: Removal, rows: np.ndarray, bins: list[tuple[int, ...]], size: int, reason: Reason
) -> tuple[tuple[int, ...], Removal]:
    """Restore channels of each bin's blocks until it holds `size`; also returns the kept sets in their new order."""
    order: list[int] = []
    for members in bins:
        own = rows[list(members)].reshape(-1)
        missing = size - int((~removal.removed[own]).sum())
        removal = removal.restored(own[removal.removed[own]][:missing], reason)
        order += own[~removal.removed[own]].tolist()
    return tuple(order), removal
