"""Parts of a network that only training runs, or of which only training reads what they compute."""

import numpy as np
from torch import nn

from slimnet.graph.channel_graph import ChannelGraph, Depthwise, Reader, Step
from slimnet.modules.tensors import Named


def idle_parameters(graph: ChannelGraph, tensors: Named) -> list[str]:
    """The names of the parameters that no op of the forward reads."""
    used = {id(tensors[name]) for name in graph.used}
    return [name for name, tensor in tensors.items() if id(tensor) not in used and isinstance(tensor, nn.Parameter)]


def unread_weights(graph: ChannelGraph) -> list[str]:
    """The weights of layers that run, but on which nothing that the network returns depends.

    As those of the second head of a detector whose boxes come from the first one, and which only a loss reads.
    """
    live = np.zeros(graph.size, dtype=bool)
    for pin in graph.pins:
        live[pin.labels] = True
    for total in graph.sums:
        live[total.rows] = True
    found = []
    for step in reversed(graph.steps):
        layer = isinstance(step, Reader | Depthwise)
        if live[step.outputs if layer else step.out].any():
            for operand in (step.inputs,) if layer else step.operands:
                live[operand] = True
        elif layer and step.weight is not None:
            found.append(step.weight)
    return found


def modules_around(names: list[str]) -> set[str]:
    """The modules around those that own the named parameters; the owners themselves are not among them."""
    found = set()
    for name in names:
        path = name.rpartition(".")[0]
        while path:
            path = path.rpartition(".")[0]
            found.add(path)
    return found


def without_macs(step: Step) -> Step:
    """A step of the forward in training, which costs inference nothing."""
    return step._replace(macs=0) if isinstance(step, Reader | Depthwise) else step
