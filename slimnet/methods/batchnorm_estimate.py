"""recalibrated: BatchNorm statistics and biases re-estimated without the removed channels, without data or training."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from slimnet.graph.channel_graph import ChannelGraph, Reader
from slimnet.methods.batchnorm_updates import Changes, Statistics
from slimnet.methods.candidates import Channels
from slimnet.methods.moments import Moments, moments
from slimnet.modules.copying import shared_copy
from slimnet.modules.example_inputs import Inputs
from slimnet.modules.network import Network
from slimnet.planning.constants import as_float64
from slimnet.torch_state.precision import float32_products, in_double
from slimnet.torch_state.random_state import random_numbers_kept


def recalibrated(
    model: nn.Module, inputs: Inputs, channels: Channels, masked: np.ndarray, threshold: float = 0.0
) -> nn.Module:
    """A copy of a network with masked channels, in which the statistics downstream of their readers are corrected.

    `masked[set]` marks the masked sets of `channels`, which were traced before masking. A layer that reads them loses
    the weighted sum of their means, and their share of its variance: the BatchNorms that it reaches, directly or
    through additions, get the statistics of the remaining channels. If none follows directly, the mean is added to the
    layer's bias. Both are estimated from the other BatchNorms, see `moments`. A layer with neither is not changed, and
    neither are channels with |γ| below `threshold`.
    """
    graph, silent = channels.graph, masked[channels.sets]
    if not any(silent[reader.inputs].any() for reader in graph.readers):
        return model
    before = moments(graph)
    tensors = Network.of(model).named
    loss = Loss(before, layers_of(model, channels, inputs), biased(graph, tensors))
    after = moments(graph, silent, loss.mean_left)
    changes = Changes(tensors)
    calls = Counter(gamma for gamma, _ in graph.norms)
    for gamma, norm in graph.norms:
        alive = ~silent[norm.inputs] & (np.abs(as_float64(tensors[gamma])) >= threshold)
        had, left = (Statistics(found.mean[norm.inputs], found.variance[norm.inputs]) for found in (before, after))
        changes.update_norm(gamma.rpartition(".")[0], alive, had, left, calls[gamma])
    for reader in graph.readers:
        if reader.module in loss.mended:
            changes.alter(str(reader.bias_name), shift=loss.of(reader, after.mean[reader.inputs]))
    return shared_copy(model, changes.tensors)


@dataclass(frozen=True)
class Loss:
    """The change of the layers' mean outputs when the means of their inputs change from those of `before`.

    `layers` are the modules with their input shapes; the biases of those in `mended` will compensate it.
    """

    before: Moments
    layers: Mapping[str, tuple[nn.Module, torch.Size]]
    mended: frozenset[str]

    def of(self, reader: Reader, means: np.ndarray) -> np.ndarray:
        """The missing mean of a layer's outputs `(O,)` when its inputs have only these means `(K,)`."""
        lost = self.before.mean[reader.inputs] - means
        if reader.module not in self.layers or not lost.any():
            return np.zeros(reader.outputs.size)
        return response(*self.layers[reader.module], lost)

    def mean_left(self, reader: Reader, means: np.ndarray) -> np.ndarray:
        """The mean of a layer's outputs, including biases that compensate a loss."""
        known = self.before.mean[reader.outputs]
        return known if reader.module in self.mended else known - self.of(reader, means)


def biased(graph: ChannelGraph, tensors: Mapping[str, torch.Tensor]) -> frozenset[str]:
    """The layers that have a bias and are not directly followed by BatchNorm."""
    normed = np.zeros(graph.size, dtype=bool)
    for _, norm in graph.norms:
        normed[norm.inputs] = True
    free = (reader for reader in graph.readers if not normed[reader.outputs].any())
    own = {reader.module for reader in free if reader.bias_name == f"{reader.module}.bias"}
    return frozenset(module for module in own if f"{module}.bias" in tensors)


def layers_of(model: nn.Module, channels: Channels, inputs: Inputs) -> dict[str, tuple[nn.Module, torch.Size]]:
    """The layers that run once, with their own weight as stored in the state dict, with their input shapes."""
    calls = Counter(reader.module for reader in channels.graph.readers)
    modules, shapes = dict(model.named_modules()), input_shapes(model, inputs)
    return {
        reader.module: (modules[reader.module], shapes[reader.module])
        for reader in channels.graph.readers
        if reader.module in shapes and reader.weight == f"{reader.module}.weight" and calls[reader.module] == 1
    }


def input_shapes(model: nn.Module, inputs: Inputs) -> dict[str, torch.Size]:
    """The input shape of every convolution and linear layer."""
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
    """The output of a layer for constant inputs `(K,)`, without its bias, averaged over all positions: `(O,)`.

    It is computed by running the layer, since zero padding reduces the contributions at the border.
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
