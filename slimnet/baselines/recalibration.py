"""recalibrated: BatchNorms and biases that know of the channels that are gone, without data and without training."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from slimnet.baselines.channels import Channels, sibling
from slimnet.baselines.moments import Moments, moments
from slimnet.calculus.constants import as_float64
from slimnet.graph import ChannelGraph, Norm, Reader
from slimnet.inputs import Inputs
from slimnet.places import float32_products, in_double, random_numbers_kept
from slimnet.skeleton import gather, shared_copy

LEAST_LEFT = 0.05
"""The smallest share of its variance that a BatchNorm is left with: what is estimated to be nothing may be more."""


def recalibrated(
    model: nn.Module, inputs: Inputs, channels: Channels, gone: np.ndarray, threshold: float = 0.0
) -> nn.Module:
    """A copy of a network with silenced channels, in which their readers no longer miss what those were on average.

    `gone[set]` are the silenced ones of `channels`, which were traced before. A layer that read them has lost the
    sum of their means, weighted, and their share of its variance: the BatchNorms that it reaches, at once or through
    additions, get the statistics of what is left. Where none follows at once, a bias that the layer has gets the mean.
    Both are estimated from the other BatchNorms, see `moments`. A layer with neither stays as it is, and so does a
    channel with |γ| below `threshold`.
    """
    graph, silent = channels.graph, gone[channels.sets]
    if not any(silent[reader.inputs].any() for reader in graph.readers):
        return model
    before = moments(graph)
    tensors = gather(model).named
    loss = Loss(before, layers_of(model, channels, inputs), biased(graph, tensors))
    after = moments(graph, silent, loss.mean_left)
    changes = Changes(tensors)
    calls = Counter(gamma for gamma, _ in graph.norms)
    for gamma, norm in graph.norms:
        alive = ~silent[norm.inputs] & (np.abs(as_float64(tensors[gamma])) >= threshold)
        changes.tell(gamma, norm, before, after, alive, calls[gamma])
    for reader in graph.readers:
        if reader.module in loss.mended:
            changes.alter(str(reader.bias_name), shift=loss.of(reader, after.mean[reader.inputs]))
    return shared_copy(model, changes.tensors)


@dataclass(frozen=True)
class Loss:
    """What layers lose with the means of their inputs, which were those of `before`.

    `layers` are the modules that are known to make outputs of inputs, with the shape of what they read; the biases of
    those in `mended` will make up for it.
    """

    before: Moments
    layers: Mapping[str, tuple[nn.Module, torch.Size]]
    mended: frozenset[str]

    def of(self, reader: Reader, means: np.ndarray) -> np.ndarray:
        """The mean of a layer's outputs `(O,)` that is missing where its inputs have only these means `(K,)` left."""
        lost = self.before.mean[reader.inputs] - means
        if reader.module not in self.layers or not lost.any():
            return np.zeros(reader.outputs.size)
        return response(*self.layers[reader.module], lost)

    def mean_left(self, reader: Reader, means: np.ndarray) -> np.ndarray:
        """The mean of a layer's outputs, biases that make up for a loss included."""
        known = self.before.mean[reader.outputs]
        return known if reader.module in self.mended else known - self.of(reader, means)


@dataclass(frozen=True)
class Changes:
    """The tensors of a network that are replaced, by name, beside the `old` ones."""

    old: Mapping[str, torch.Tensor]
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def tell(self, gamma: str, norm: Norm, before: Moments, after: Moments, alive: np.ndarray, calls: int) -> None:
        """Give a BatchNorm, at those channels that are `alive`, the statistics of what it still reads.

        One that is called several times has the statistics of all calls together, each of which changes its part.
        """
        mean, variance = sibling(gamma, "running_mean"), sibling(gamma, "running_var")
        if mean not in self.old or variance not in self.old:
            return
        shift = np.where(alive, after.mean[norm.inputs] - before.mean[norm.inputs], 0)
        had, left = before.variance[norm.inputs], after.variance[norm.inputs]
        share = np.divide(left, had, out=np.ones_like(had), where=alive & (had > 0))
        self.alter(mean, shift=shift / calls)
        self.alter(variance, factor=np.maximum(share, LEAST_LEFT) ** (1 / calls))

    def alter(self, name: str, factor: np.ndarray | float = 1.0, shift: np.ndarray | float = 0.0) -> None:
        """Replace a tensor by a multiple of it and something more, computed in float64; the same stays the same."""
        if np.any(factor != 1) or np.any(shift):
            old = self.tensors.get(name, self.old[name]).detach()
            self.tensors[name] = torch.from_numpy(as_float64(old) * factor + shift).to(old.device, old.dtype)


def biased(graph: ChannelGraph, tensors: Mapping[str, torch.Tensor]) -> frozenset[str]:
    """The layers with a bias of their own and no BatchNorm right behind them."""
    normed = np.zeros(graph.size, dtype=bool)
    for _, norm in graph.norms:
        normed[norm.inputs] = True
    free = (reader for reader in graph.readers if not normed[reader.outputs].any())
    own = {reader.module for reader in free if reader.bias_name == f"{reader.module}.bias"}
    return frozenset(module for module in own if f"{module}.bias" in tensors)


def layers_of(model: nn.Module, channels: Channels, inputs: Inputs) -> dict[str, tuple[nn.Module, torch.Size]]:
    """The layers that run once with the weight they own, as it stands in their state, with the shapes they read."""
    calls = Counter(reader.module for reader in channels.graph.readers)
    modules, shapes = dict(model.named_modules()), input_shapes(model, inputs)
    return {
        reader.module: (modules[reader.module], shapes[reader.module])
        for reader in channels.graph.readers
        if reader.module in shapes and reader.weight == f"{reader.module}.weight" and calls[reader.module] == 1
    }


def input_shapes(model: nn.Module, inputs: Inputs) -> dict[str, torch.Size]:
    """The shape of what every convolution and linear layer reads."""
    copied = shared_copy(model).eval()
    shapes: dict[str, torch.Size] = {}
    for name, module in copied.named_modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):

            def note(_: nn.Module, given: tuple[torch.Tensor, ...], name: str = name) -> None:
                shapes[name] = given[0].shape

            module.register_forward_pre_hook(note)
    with torch.no_grad(), random_numbers_kept(copied):
        inputs.call(copied)
    return shapes


@torch.no_grad()
def response(layer: nn.Module, shape: torch.Size, means: np.ndarray) -> np.ndarray:
    """What a layer makes of constant inputs `(K,)`, without its bias, on average over all positions: `(O,)`.

    At zero padding it sees less of them, which only the layer itself knows.
    """
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    values = torch.from_numpy(means).to(weight.device, weight.dtype)
    if isinstance(layer, nn.Linear):
        return (in_double(weight) @ in_double(values)).cpu().numpy()
    planes = values.reshape(1, -1, *[1] * (weight.ndim - 2)).expand(1, -1, *shape[2:])
    with float32_products(tf32=False):
        made = layer(planes) - layer(torch.zeros_like(planes))
    return in_double(made).flatten(2).mean(2)[0].cpu().numpy()
