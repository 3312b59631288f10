"""Which γ a plan relies on: those that must be zero for the slim network to be exact.

A plan is made as if every dead γ were zero. Most channels that stay do not need that: the slim network computes them
as the dense one does, with the γ they have. It is needed in three cases only.

* A constant that was folded into a bias or merged into a carrier must be a constant, and so must the carrier.
* What such a constant was computed from must be constant too, also where it belongs to a channel that stays.
* A layer may lose inputs that vary where all outputs that read them end in a BatchNorm with a dead γ. The slim network
  computes other values for these outputs; this γ keeps them from what follows.
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
    """The positions of each γ, among the `dead` ones, that must be zero for the plan to be exact, by name."""
    relied = relied_constants(removal, merges)
    for labels in shielding(removal):
        relied[labels] = True
    fixed = ~np.isnan(removal.constants)
    found: dict[str, set[int]] = {}
    for step in reversed(removal.graph.steps):
        out = step.outputs if isinstance(step, Reader | Depthwise) else step.out
        wanted = relied[out] & fixed[out]
        if not np.count_nonzero(wanted):
            continue
        if isinstance(step, Norm):
            places = np.array(dead.get(step.scale or "", ()), dtype=np.int64)
            places = places[wanted[places]]
            found.setdefault(step.scale or "", set()).update(places.tolist())
            wanted[places] = False
        relied[computed_from(step, wanted)] = True
    for known in removal.graph.known:
        places = np.array(dead.get(known.parameter or "", ()), dtype=np.int64)
        found.setdefault(known.parameter or "", set()).update(places[relied[known.labels[places]]].tolist())
    return {name: tuple(sorted(channels)) for name, channels in sorted(found.items()) if channels}


def computed_from(step: Step, rows: np.ndarray) -> Labels:
    """What a step computes some of its outputs from; weights that are zero aside."""
    if isinstance(step, Depthwise):
        return step.inputs.repeat(step.outputs.size // step.inputs.size)[rows]
    if isinstance(step, Reader):
        return step.inputs[columns_read(step, rows)]
    return np.concatenate([operand[rows] for operand in step.operands])


def relied_constants(removal: Removal, merges: Iterable[Merge]) -> np.ndarray:
    """For every label whether it was taken for a constant: where it was removed and is read, or carries others."""
    graph = removal.graph
    relied = np.zeros(graph.size, dtype=bool)
    carriers = {merge.weight: list(merge.carriers) for merge in merges}
    for reader, reads in zip(graph.readers, removal.needs.reads, strict=True):
        relied[reader.inputs[removal.gone(reader.inputs) & reads]] = True
        if reader.weight in carriers:
            relied[reader.inputs[carriers[reader.weight]]] = True
    for total in graph.sums:
        gone = removal.gone(total.rows)
        if gone.any():
            # Of a maximum, those that stay and are constants may stand for the larger ones that go.
            relied[total.rows if total.kind == "max" else total.rows[gone]] = True
    return relied


def shielding(removal: Removal) -> list[Labels]:
    """What stays and must be constant since the slim network computes other values before it.

    Those are the values of outputs that nothing needs, in layers that lose inputs which vary, and what follows them up
    to where it no longer matters.
    """
    graph, live = removal.graph, removal.needs.live
    other = ~removal.stays
    found: list[Labels] = []
    reads = iter(removal.needs.reads)
    for step in graph.steps:
        if isinstance(step, Reader):
            lost = (other[step.inputs] & ~next(reads)).reshape(step.groups, -1).any(1)
            if lost.any():
                outputs = step.outputs.reshape(step.groups, -1)[lost]
                other[outputs[~live[outputs]]] = True
        elif isinstance(step, Depthwise):
            inputs = step.inputs.repeat(step.outputs.size // step.inputs.size)
            other[step.outputs[other[inputs] & ~live[step.outputs]]] = True
        else:
            spoilt = any_of(other, step.operands)
            if np.count_nonzero(spoilt):
                needed = spoilt & live[step.out] & removal.stays[step.out]
                found.append(step.out[needed])
                other[step.out[spoilt & ~needed]] = True
    return found


def any_of(marked: np.ndarray, operands: Sequence[Labels]) -> np.ndarray:
    """At which positions one of some operands is marked."""
    found = marked[operands[0]]
    for operand in operands[1:]:
        found = found | marked[operand]
    return found
