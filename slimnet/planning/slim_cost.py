"""The cost of the slim network, counted on the trace of its skeleton, or computed by arithmetic."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from slimnet.graph.channel_graph import ChannelGraph, Depthwise, Op, Reader
from slimnet.graph.labels import varying_axes
from slimnet.graph.sizes import attributes_of
from slimnet.modules.network import Network
from slimnet.planning.channel_order import Orders
from slimnet.planning.removal import Removal
from slimnet.tracing.ops.registry import spec_of


@dataclass(frozen=True)
class SlimCost:
    """The slim network's parameters, MACs for one example, and each layer's MACs and groups.

    `layer_macs` are for the whole batch, one for each layer in execution order; `groups` one for each reader.
    """

    params: int
    macs: int
    layer_macs: tuple[int, ...]
    groups: tuple[int, ...]


def slim_cost_of_trace(structure: Network, slim: ChannelGraph) -> SlimCost:
    """The cost of a slim network by its skeleton and trace."""
    return SlimCost(
        params=count_elements(structure.tensors.parameters),
        macs=slim.macs,
        layer_macs=tuple(layer.macs for layer in slim.layers),
        groups=tuple(reader.groups for reader in slim.readers),
    )


def is_plain(graph: ChannelGraph) -> bool:
    """Whether no op of the network can depend on a width without raising, so that arithmetic gives the slim cost.

    If the code hard-codes a width after all, the slim network's forward raises.
    """
    divided = graph.parts or graph.sums or graph.paddings or any(reader.groups > 1 for reader in graph.readers)
    sized = any(attributes_of(use.size) for use in graph.uses)
    return (
        not divided
        and not sized
        and all(spec_of(op.name).width_free and not is_ambiguous(op) for op in graph.ops if op.touched)
    )


def is_ambiguous(op: Op) -> bool:
    """Whether a view may change an axis without channels when the channel axis becomes narrower.

    `view(n, 4, -1)` does so without raising if the sizes happen to divide.
    """
    channels = {axis for face in op.touched[len(op.touched) // 2 :] for axis in varying_axes(face)}
    return any(size > 1 and axis not in channels for axis, size in enumerate(op.shape) if axis)


def slim_cost_by_arithmetic(parameters: Mapping[str, torch.Tensor], removal: Removal) -> SlimCost:
    """The cost of a plain network, with these parameters, after a removal."""
    graph = removal.graph
    layer_macs = tuple(macs_left(layer, removal) for layer in graph.layers)
    before, after = sum(layer.macs for layer in graph.layers), sum(layer_macs)
    return SlimCost(
        params=count_left(parameters, removal),
        macs=graph.macs - (before - after) // graph.batch,
        layer_macs=layer_macs,
        groups=(1,) * len(graph.readers),
    )


def unchanged(parameters: Mapping[str, torch.Tensor], graph: ChannelGraph) -> SlimCost:
    """The cost of a network, with these parameters, from which nothing is removed."""
    return SlimCost(
        params=count_elements(parameters),
        macs=graph.macs,
        layer_macs=tuple(layer.macs for layer in graph.layers),
        groups=tuple(reader.groups for reader in graph.readers),
    )


def macs_left(layer: Reader | Depthwise, removal: Removal) -> int:
    """MACs of one layer after a removal; every pair of channels has the same share."""
    outputs = removal.count_kept(layer.outputs)
    if isinstance(layer, Depthwise):
        return layer.macs // layer.outputs.size * outputs
    inputs = removal.count_kept(layer.inputs)
    return layer.macs // (layer.outputs.size * layer.inputs.size) * outputs * inputs


def count_left(parameters: Mapping[str, torch.Tensor], removal: Removal) -> int:
    """The number of elements of the parameters after a removal; shared parameters count once."""
    once = distinct(parameters)
    left: dict[str, list[int]] = {}
    for (name, axis), labels in removal.graph.vectors.items():
        kept = removal.count_kept(labels)
        if kept != labels.size and name in once:
            left.setdefault(name, list(once[name].shape))[axis] = kept
    return sum(math.prod(left[name]) if name in left else parameter.numel() for name, parameter in once.items())


def natural_orders(removal: Removal) -> Orders:
    """The orders in which every axis keeps its order."""
    readers = removal.graph.readers
    return Orders(
        axes={},
        inputs=tuple(removal.kept(reader.inputs) for reader in readers),
        outputs=tuple(removal.kept(reader.outputs) for reader in readers),
    )


def count_elements(parameters: Mapping[str, torch.Tensor]) -> int:
    """The number of elements of some parameters; one with several names counts once."""
    return sum(parameter.numel() for parameter in distinct(parameters).values())


def distinct(parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every parameter under its first name."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for name, parameter in parameters.items():
        found.setdefault(id(parameter), (name, parameter))
    return dict(found.values())
