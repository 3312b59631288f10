"""The cost of each BatchNorm channel: the MACs or parameters that its removal saves."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from slimnet.errors import UsageError
from slimnet.graph.channel_graph import ChannelGraph, Reader
from slimnet.modules.example_inputs import ExampleInputs
from slimnet.planning.channel_reductions import never_going
from slimnet.tracing.trace import trace
from slimnet.training.recipe.recipe import Cost

Piece = tuple[float, tuple[np.ndarray, ...]]
"""A tensor or layer that shrinks with its channels: its size, and the sets of the channels on each of its axes."""


def channel_costs(model: nn.Module, example_inputs: ExampleInputs, unit: Cost = "macs") -> dict[str, torch.Tensor]:
    """The savings of removing each channel alone, in MACs for one example or in parameters, float64 `(C,)` by γ.

    They include the channel's filter, its slice of every layer that reads it, and for parameters also its biases and
    BatchNorms. The savings of a channel set with several γ, as along a residual stream, are divided equally among
    them. A channel that can never be removed saves nothing.

    Raises:
        TraceError, InputError: as `slimnet.slim` does.
    """
    graph = trace(model, example_inputs)
    sets = graph.sets
    pieces = layer_macs(graph, sets) if unit == "macs" else parameter_sizes(graph, sets, model)
    saved = savings(pieces, int(sets.max()) + 1)
    saved[sets[never_going(graph)]] = 0.0
    scales = {gamma: sets[norm.out] for gamma, norm in graph.norms}
    sharing = np.bincount(np.concatenate([*scales.values(), []]).astype(np.int64), minlength=saved.size)
    return {name: torch.from_numpy(saved[members] / sharing[members]) for name, members in scales.items()}


def relative_costs(model: nn.Module, example_inputs: ExampleInputs, unit: Cost = "macs") -> dict[str, torch.Tensor]:
    """`channel_costs` over their mean, so that the mean over all γ of the network is 1.

    Raises:
        UsageError: no channel of a BatchNorm can be removed, so that all savings are 0.
        TraceError, InputError: as `slimnet.slim` does.
    """
    costs = channel_costs(model, example_inputs, unit)
    total = sum(float(cost.sum()) for cost in costs.values())
    if not total:
        raise UsageError(
            f"cost_aware has no effect in {type(model).__name__}: no channel behind a BatchNorm can be "
            "removed; leave it out"
        )
    mean = total / sum(cost.numel() for cost in costs.values())
    return {name: cost / mean for name, cost in costs.items()}


def layer_macs(graph: ChannelGraph, sets: np.ndarray) -> Iterator[Piece]:
    """Every convolution and linear layer with its MACs for one example."""
    for layer in graph.layers:
        axes = (layer.outputs, layer.inputs) if isinstance(layer, Reader) else (layer.outputs,)
        yield layer.macs / graph.batch, tuple(sets[labels] for labels in axes)


def parameter_sizes(graph: ChannelGraph, sets: np.ndarray, model: nn.Module) -> Iterator[Piece]:
    """Every parameter with its number of elements, shared ones once."""
    # The second axis of a grouped convolution's weight has the length of one group; its reader has all inputs.
    readers = {layer.weight: layer for layer in graph.readers}
    for name, parameter in model.named_parameters():
        if name in readers:
            axes = [readers[name].outputs, readers[name].inputs]
        else:
            axes = [labels for (owner, _), labels in graph.vectors.items() if owner == name]
        yield parameter.numel(), tuple(sets[labels] for labels in axes)


def savings(pieces: Iterator[Piece], count: int) -> np.ndarray:
    """The savings, over all pieces, of removing each of `count` sets alone."""
    saved = np.zeros(count)
    for size, axes in pieces:
        left = np.ones(count)
        for members in axes:
            left *= 1 - np.bincount(members, minlength=count) / members.size
        saved += size * (1 - left)
    return saved
