"""The γ that a plan relies on: those that must be exactly zero for the slim network to be exact.

A plan treats every dead γ as zero. Most kept channels do not need that: the slim network computes them as the dense one
does, with their actual γ. It is needed in three cases only.

* A constant that was folded into a bias or merged into a carrier must be constant, and so must the carrier.
* The values from which such a constant is computed must be constant too, also those of kept channels.
* A layer may lose inputs that vary if all outputs that read them end in a BatchNorm with a dead γ. The slim network
  computes different values for these outputs; the zero γ masks them.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from slimnet.graph.channel_graph import Depthwise, Norm, Reader, Step
from slimnet.graph.labels import Labels
from slimnet.planning.liveness import columns_read
from slimnet.planning.removal import Removal
from slimnet.surgery.plan_data import Merge


def relied_scales(
    removal: Removal, merges: Iterable[Merge], dead: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """The positions of each γ, by name, among the `dead` ones, that must be zero for the plan to be exact."""
    relied = relied_constants(removal, merges)
    for labels in masking_constants(removal):
        relied[labels] = True
    fixed = ~np.isnan(removal.constants)
    found: dict[str, set[int]] = {}
    for step in reversed(removal.graph.steps):
        out = step.outputs if isinstance(step, Reader | Depthwise) else step.out
        wanted = relied[out] & fixed[out]
        if not np.count_nonzero(wanted):
            continue
        if isinstance(step, Norm):
            positions = np.array(dead.get(step.scale or "", ()), dtype=np.int64)
            positions = positions[wanted[positions]]
            found.setdefault(step.scale or "", set()).update(positions.tolist())
            wanted[positions] = False
        relied[computed_from(step, wanted)] = True
    for known in removal.graph.known:
        positions = np.array(dead.get(known.parameter or "", ()), dtype=np.int64)
        found.setdefault(known.parameter or "", set()).update(positions[relied[known.labels[positions]]].tolist())
    return {name: tuple(sorted(channels)) for name, channels in sorted(found.items()) if channels}


def computed_from(step: Step, rows: np.ndarray) -> Labels:
    """The inputs from which a step computes these rows of its outputs, except those with zero weights."""
    if isinstance(step, Depthwise):
        return step.inputs.repeat(step.outputs.size // step.inputs.size)[rows]
    if isinstance(step, Reader):
        return step.inputs[columns_read(step, rows)]
    return np.concatenate([operand[rows] for operand in step.operands])


def relied_constants(removal: Removal, merges: Iterable[Merge]) -> np.ndarray:
    """For every label whether the plan relies on its being constant: it is removed and read, or is a carrier."""
    graph = removal.graph
    relied = np.zeros(graph.size, dtype=bool)
    carriers = {merge.weight: list(merge.carriers) for merge in merges}
    for reader, reads in zip(graph.readers, removal.needs.reads, strict=True):
        relied[reader.inputs[removal.is_removed(reader.inputs) & reads]] = True
        if reader.weight in carriers:
            relied[reader.inputs[carriers[reader.weight]]] = True
    for total in graph.sums:
        removed = removal.is_removed(total.rows)
        if removed.any():
            # In a maximum, a kept constant may replace the removed ones.
            relied[total.rows if total.kind == "max" else total.rows[removed]] = True
    return relied


def masking_constants(removal: Removal) -> list[Labels]:
    """Kept labels that must be constant because the slim network computes different values upstream of them.

    These values are the dead outputs of layers that lose varying inputs, and everything computed from them as far as
    the first constants.
    """
    graph, live = removal.graph, removal.needs.live
    differs = ~removal.stays
    found: list[Labels] = []
    reads = iter(removal.needs.reads)
    for step in graph.steps:
        if isinstance(step, Reader):
            lost = (differs[step.inputs] & ~next(reads)).reshape(step.groups, -1).any(1)
            if lost.any():
                outputs = step.outputs.reshape(step.groups, -1)[lost]
                differs[outputs[~live[outputs]]] = True
        elif isinstance(step, Depthwise):
            inputs = step.inputs.repeat(step.outputs.size // step.inputs.size)
            differs[step.outputs[differs[inputs] & ~live[step.outputs]]] = True
        else:
            affected = any_of(differs, step.operands)
            if np.count_nonzero(affected):
                needed = affected & live[step.out] & removal.stays[step.out]
                found.append(step.out[needed])
                differs[step.out[affected & ~needed]] = True
    return found


def any_of(marked: np.ndarray, operands: Sequence[Labels]) -> np.ndarray:
    """At which positions at least one operand is marked."""
    found = marked[operands[0]]
    for operand in operands[1:]:
        found = found | marked[operand]
    return found
