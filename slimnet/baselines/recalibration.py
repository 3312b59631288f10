"""recalibrated: BatchNorms and biases that know of the channels that are gone, without data and without training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from slimnet.baselines.channels import Channels, sibling
from slimnet.baselines.moments import Moments, moments, weights_of
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
    sum of their means, weighted, and their share of its variance: the BatchNorm behind it gets the statistics of what
    is left, and where there is none, the bias gets the mean. Both are estimated from the other BatchNorms, see
    `moments`. A layer with neither stays as it is, and so does a channel with |γ| below `threshold`.
    """
    readers = [reader for reader in channels.graph.readers if gone[channels.sets[reader.inputs]].any()]
    if not readers:
        return model
    estimate, shapes = moments(channels.graph), input_shapes(model, inputs)
    correction = Correction(channels.graph, gather(model).named, threshold)
    for reader in readers:
        layer = layer_of(model, channels, reader)
        if layer is not None and reader.module in shapes:
            missing = gone[channels.sets[reader.inputs]]
            mean = lost_mean(layer, shapes[reader.module], missing * estimate.mean[reader.inputs])
            correction.add(reader, mean, lost_share(reader, missing, estimate))
    return shared_copy(model, correction.changed)


@dataclass(frozen=True)
class Correction:
    """The tensors that are changed, by name, out of all `tensors` of a network."""

    graph: ChannelGraph
    tensors: Mapping[str, torch.Tensor]
    threshold: float
    changed: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, reader: Reader, mean: np.ndarray, share: np.ndarray) -> None:
        """Take what a layer has lost, `(O,)` each, out of the statistics behind it, or out of its bias."""
        behind = [(gamma, norm) for gamma, norm in self.graph.norms if np.isin(norm.inputs, reader.outputs).any()]
        for gamma, norm in behind:
            names = sibling(gamma, "running_mean"), sibling(gamma, "running_var")
            if all(name in self.tensors for name in names):
                spread = self.spread(gamma, norm, reader)
                self.alter(names[0], shift=-spread(mean))
                self.alter(names[1], factor=1 - spread(share))
        bias = reader.bias_name
        if not behind and bias is not None and bias in self.tensors:
            self.alter(bias, shift=mean)

    def spread(self, gamma: str, norm: Norm, reader: Reader) -> Callable[[np.ndarray], np.ndarray]:
        """How to spread values of a layer's outputs over the inputs of a BatchNorm, 0 where it reads others."""
        alive = np.abs(as_float64(self.tensors[gamma])) >= self.threshold
        order = np.argsort(reader.outputs)
        places = order[np.searchsorted(reader.outputs, norm.inputs, sorter=order).clip(max=order.size - 1)]
        meets = (reader.outputs[places] == norm.inputs) & alive
        return lambda values: np.where(meets, values[places], 0.0)

    def alter(self, name: str, factor: np.ndarray | float = 1.0, shift: np.ndarray | float = 0.0) -> None:
        """Replace a tensor by a multiple of it and something more, computed in float64."""
        old = self.changed.get(name, self.tensors[name]).detach()
        self.changed[name] = torch.from_numpy(as_float64(old) * factor + shift).to(old.device, old.dtype)


def layer_of(model: nn.Module, channels: Channels, reader: Reader) -> nn.Module | None:
    """The module of a layer that runs once with the weight it owns, as it stands in its state."""
    calls = sum(other.module == reader.module for other in channels.graph.readers)
    module = dict(model.named_modules()).get(reader.module)
    own = isinstance(module, nn.Linear | nn.modules.conv._ConvNd) and reader.weight == f"{reader.module}.weight"
    return module if own and calls == 1 else None


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
def lost_mean(layer: nn.Module, shape: torch.Size, means: np.ndarray) -> np.ndarray:
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
        response = layer(planes) - layer(torch.zeros_like(planes))
    return in_double(response).flatten(2).mean(2)[0].cpu().numpy()


def lost_share(reader: Reader, missing: np.ndarray, estimate: Moments) -> np.ndarray:
    """The share of the variance of a layer's outputs `(O,)` that missing inputs `(K,)` have brought."""
    _, energies = weights_of(reader)
    variance = estimate.variance[reader.inputs].reshape(reader.groups, -1, 1)
    gone = variance * missing.reshape(variance.shape)
    whole = energies @ variance
    share = np.divide(energies @ gone, whole, out=np.zeros_like(whole), where=whole > 0)
    return np.minimum(share.reshape(-1), 1 - LEAST_LEFT)
