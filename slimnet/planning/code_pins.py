"""Pins for code that hard-codes a width, located by the op at which the forward of the slim network raised."""

from collections.abc import Sequence

import numpy as np

from slimnet.graph.channel_graph import ChannelGraph, Op
from slimnet.graph.labels import Labels, labels_among, unique
from slimnet.graph.reasons import Kind, Place, Reason
from slimnet.planning.removal import Removal
from slimnet.planning.split_axes import ExtraPin
from slimnet.tracing.ops.registry import spec_of
from slimnet.tracing.trace import InterruptedForwardError


def pin_sets(removal: Removal, sets: np.ndarray, where: str) -> ExtraPin:
    """Pin these sets; if none of them was removed, the labels of the surrounding module instead."""
    members = np.isin(removal.sets, sets)
    place = next((op.place for op in removal.graph.ops if str(op) == where), Place(module=where))
    if not place.op:
        # A layer raised, but the number is in an earlier line: blame the first op with sizes that touches these sets.
        moved = (op for op in removal.graph.ops if spec_of(op.name).takes_sizes)
        place = next((op.place for op in moved if members[labels_of([op])].any()), place)
    reason = Reason(Kind.CODE_AROUND, place)
    if removal.removed[sets].any():
        labels = np.flatnonzero(members)
        return labels[labels > 0], reason
    module = next((op.module for op in removal.graph.ops if members[labels_of([op])].any()), "")
    return labels_around(removal, module), reason


def labels_around(removal: Removal, module: str) -> Labels:
    """The labels touched in a module, or in the nearest enclosing module from which anything is removed."""
    graph = removal.graph
    while module:
        touched = labels_of([op for op in graph.ops if op.module == module or op.module.startswith(f"{module}.")])
        if removal.is_removed(touched).any():
            return touched
        module = module.rpartition(".")[0]
    return np.arange(1, graph.size)


def pin_op(
    graph: ChannelGraph, removal: Removal, stop: InterruptedForwardError, blamed: Sequence[Op]
) -> tuple[ExtraPin, tuple[Op, ...]]:
    """Pin the op that made a narrower forward raise: the last one so far that moves the same channels by sizes.

    Returns the pin and the ops `blamed` from now on. If ops from its source line were blamed before, those in the same
    module are pinned with it, and the next time all of that line. If there is no such op, the op that raised is pinned,
    then its neighbours, then its module, then the enclosing modules.
    """
    position = min(stop.position, len(graph.ops) - 1)
    culprit = graph.ops[position]
    concerned = concerned_by(graph, removal, stop)
    for op in reversed(graph.ops[: position + 1]):
        if spec_of(op.name).takes_sizes and np.isin(removal.sets[labels_of([op])], concerned).any():
            twins = blamed_with(graph, op, blamed)
            if removal.is_removed(labels_of(twins)).any():
                return (labels_of(twins), unfollowed(op)), (*blamed, op)
    reason = unfollowed(culprit)
    for ops in ([culprit], graph.ops[max(0, position - 2) : position + 3]):
        touched = labels_of(ops)
        if removal.is_removed(touched).any():
            return (touched, reason), tuple(blamed)
    return (labels_around(removal, culprit.module), reason), tuple(blamed)


def blamed_with(graph: ChannelGraph, op: Op, blamed: Sequence[Op]) -> list[Op]:
    """The ops pinned with an op: it alone, then those of its source line in its module, then all of that line."""
    times = sum((other.name, other.line) == (op.name, op.line) for other in blamed)
    if not times:
        return [op]
    twins = [other for other in graph.ops if (other.name, other.line) == (op.name, op.line)]
    return [other for other in twins if other.module == op.module] if times == 1 else twins


def unfollowed(op: Op) -> Reason:
    """The reason that the code at an op hard-codes a width."""
    return Reason(Kind.SPLIT if op.name in ("split", "split_with_sizes") else Kind.CODE, op.place)


def concerned_by(graph: ChannelGraph, removal: Removal, stop: InterruptedForwardError) -> np.ndarray:
    """The sets touched, in the dense network, by the op at which the slim network's forward raised."""
    return unique(removal.sets[labels_of([graph.ops[min(stop.position, len(graph.ops) - 1)]])])


def labels_of(ops: Sequence[Op]) -> Labels:
    """Every label that these ops touch."""
    return labels_among([face for op in ops for face in op.touched])
