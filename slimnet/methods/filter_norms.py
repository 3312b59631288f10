"""The norms of a layer's filters, one for each output channel."""

import numpy as np
import torch
from torch import nn

from slimnet.graph.channel_graph import Depthwise, Reader
from slimnet.methods.candidates import Channels
from slimnet.modules.network import Network
from slimnet.torch_state.precision import double_sum


def by_output(weight: torch.Tensor, step: Reader | Depthwise) -> torch.Tensor:
    """A view of a weight with the output channels first; a transposed convolution has them on the second axis."""
    if weight.shape[0] == step.outputs.size and (isinstance(step, Depthwise) or step.in_axis == 1):
        return weight
    if isinstance(step, Depthwise):
        return weight.view(step.outputs.size, *weight.shape[2:])
    return weight.transpose(0, 1)


def filter_norms(model: nn.Module, channels: Channels, layer: str) -> np.ndarray:
    """The sum of absolute weights of every filter of a layer, float64 `(C,)`."""
    step = channels.steps[layer]
    assert step.weight is not None, "layers whose weight is computed are pinned"
    weight = by_output(Network.of(model).named[step.weight].detach(), step)
    return double_sum(weight.abs().flatten(1), 1).cpu().numpy()


def relative(scores: np.ndarray) -> np.ndarray:
    """Scores divided by their mean, which makes layers with filters of different sizes comparable."""
    mean = scores.mean()
    return scores / mean if mean > 0 else scores
