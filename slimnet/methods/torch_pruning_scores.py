"""torch-pruning's importance criteria, applied to the filters of one layer at a time."""

from typing import Any

import numpy as np
from torch import nn

from slimnet.compat import torch_pruning
from slimnet.methods.candidates import Channels


def importance(criterion: str, model: nn.Module, channels: Channels) -> dict[str, np.ndarray]:
    """The scores `(C,)` of every convolution and linear layer by one of torch-pruning's classes, divided by their mean.

    slimnet determines which channels are removed together, so each layer is passed to the class as a separate group.

    Raises:
        UsageError: torch-pruning is not installed.
    """
    package = torch_pruning()
    score = getattr(package.importance, criterion)(normalizer="mean")
    modules = dict(model.named_modules())
    found = {}
    for layer, sets in channels.layers.items():
        module = modules[layer]
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear) and not channels.pinned[sets].any():
            scores = score(lone_group(package, module, layer, sets.size))
            found[layer] = np.nan_to_num(scores.cpu().double().numpy())
    return found


def lone_group(package: Any, module: nn.Module, name: str, width: int) -> Any:
    """A group of torch-pruning with the outputs of one layer only."""
    linear = isinstance(module, nn.Linear)
    cut = package.prune_linear_out_channels if linear else package.prune_conv_out_channels
    node = package.dependency.Node(module, None, name)
    group = package.dependency.Group()
    group.add_dep(package.dependency.Dependency(cut, cut, node, node), list(range(width)))
    group[0].root_idxs = list(range(width))
    return group
