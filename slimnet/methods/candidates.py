"""The channels that a method may choose: those of each layer, as channel sets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from slimnet.graph.channel_graph import ChannelGraph, Depthwise, Reader
from slimnet.modules.example_inputs import ExampleInputs, Inputs
from slimnet.planning.channel_reductions import never_going
from slimnet.tracing.trace import trace


@dataclass(frozen=True)
class Channels:
    """The output channels of every convolution and linear layer of a network.

    `sets` is the channel set of every label of `graph`, `layers` are the sets of a layer's outputs `(C,)` by module
    path, and `pinned[set]` marks sets that cannot be removed or masked.
    """

    graph: ChannelGraph
    sets: np.ndarray
    layers: Mapping[str, np.ndarray]
    pinned: np.ndarray

    @classmethod
    def of(cls, model: nn.Module, inputs: ExampleInputs | Inputs) -> "Channels":
        """Trace a network.

        Raises:
            TraceError, InputError: as `slimnet.slim` does.
        """
        graph = trace(model, inputs)
        sets = graph.sets
        layers: dict[str, np.ndarray] = {}
        for layer in graph.layers:
            layers.setdefault(layer.module, sets[layer.outputs])
        pinned = np.zeros(int(sets.max()) + 1, dtype=bool)
        fixed = [layer.outputs for layer in graph.layers if not can_be_masked(layer)]
        pinned[sets[np.concatenate([never_going(graph), *fixed])]] = True
        return cls(graph, sets, layers, pinned)

    @property
    def writers(self) -> np.ndarray:
        """For each set the number of its output channels in all layers."""
        return self.count(self.layers)

    @property
    def steps(self) -> dict[str, Reader | Depthwise]:
        """The first call of every layer."""
        found: dict[str, Reader | Depthwise] = {}
        for layer in self.graph.layers:
            found.setdefault(layer.module, layer)
        return found

    def count(self, layers: Iterable[str]) -> np.ndarray:
        """For each set the number of its output channels in these layers."""
        members = [self.layers[layer] for layer in layers]
        return np.bincount(np.concatenate([np.zeros(0, dtype=np.int64), *members]), minlength=self.pinned.size)

    def of_sets(self, chosen: np.ndarray) -> dict[str, tuple[int, ...]]:
        """The channels of the sets with `chosen[set]`, by layer."""
        found = {layer: tuple(np.flatnonzero(chosen[sets]).tolist()) for layer, sets in self.layers.items()}
        return {layer: channels for layer, channels in found.items() if channels}


def can_be_masked(layer: Reader | Depthwise) -> bool:
    """Whether single output channels of a layer can be masked in its weight."""
    grouped_transposed = isinstance(layer, Reader) and layer.in_axis == 0 and layer.groups > 1
    return layer.weight is not None and not grouped_transposed


def sibling(name: str, other: str) -> str:
    """The name of another tensor of the same module."""
    return f"{name.rpartition('.')[0]}.{other}" if "." in name else other
