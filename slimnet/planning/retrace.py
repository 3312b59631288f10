"""The retrace: a trace of the network's code with every tensor at its new size, to be compared with the dense trace."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from slimnet.graph.channel_graph import ChannelGraph, Depthwise
from slimnet.modules.attributes import set_integer
from slimnet.modules.copying import skeleton
from slimnet.modules.example_inputs import Inputs
from slimnet.modules.network import Network
from slimnet.modules.width_attributes import update_width_attributes
from slimnet.planning.crossing_divisions import Crossing
from slimnet.planning.group_packing import Packing
from slimnet.planning.removal import Removal
from slimnet.planning.split_axes import permuted_sets
from slimnet.surgery.plan_data import AttributeCut
from slimnet.tracing.trace import trace_structure


@dataclass(frozen=True)
class Draft:
    """A removal with the new groups of its grouped convolutions, and the crossings that were made equal jointly."""

    removal: Removal
    packings: tuple[Packing, ...]
    crossings: tuple[Crossing, ...]

    @property
    def rows(self) -> list[Sequence[int]]:
        """The sets that are permuted, in their new order: those of packed groups and of split axes."""
        packed = [side for packing in self.packings for side in (packing.inputs, packing.outputs)]
        return [*packed, *permuted_sets(self.removal)]

    def crossed_by(self, sets: np.ndarray) -> set[int]:
        """The first sets of the crossings that contain any of these sets."""
        return {crossing.first for crossing in self.crossings if np.isin(crossing.sets, sets).any()}


def trace_slim(
    network: Network, inputs: Inputs, draft: Draft, attributes: Iterable[AttributeCut] = ()
) -> tuple[Network, ChannelGraph]:
    """Trace the network with every tensor at its new size, and some attributes changed; also returns the skeleton.

    Raises:
        InterruptedForwardError: its forward raised.
    """
    graph = draft.removal.graph
    shapes = new_shapes(network.named, draft)
    groups = {graph.readers[p.reader].weight or "": len(p.bins) for p in draft.packings}
    structure = skeleton(network, shapes)
    update_width_attributes(structure, groups)
    for cut in attributes:
        set_integer(structure, cut.module, cut.attribute, cut.before, cut.after)
    depthwise = [isinstance(layer, Depthwise) for layer in graph.layers]
    return structure, trace_structure(structure, network, inputs, depthwise, stop=graph.stop)


def new_shapes(tensors: Mapping[str, torch.Tensor], draft: Draft) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that changes."""
    removal, graph = draft.removal, draft.removal.graph
    shapes: dict[str, tuple[int, ...]] = {}
    for (name, axis), labels in graph.vectors.items():
        kept = removal.count_kept(labels)
        if kept != labels.size:
            shape = list(shapes.get(name, tensors[name].shape))
            shape[axis] = kept
            shapes[name] = tuple(shape)
    packed = {packing.reader: packing for packing in draft.packings}
    for index, reader in enumerate(graph.readers):
        if reader.groups > 1 and reader.weight is not None:
            groups = len(packed[index].bins) if index in packed else reader.groups
            kept = removal.count_kept(reader.inputs if reader.in_axis == 1 else reader.outputs)
            shape = list(shapes.get(reader.weight, tensors[reader.weight].shape))
            shape[1] = kept // groups
            shapes[reader.weight] = tuple(shape)
    return shapes
