"""torch-pruning's importance criteria, applied to single layers, or to all that is removed together with a channel."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from slimnet.compat import torch_pruning
from slimnet.graph.channel_graph import Reader
from slimnet.methods.candidates import Channels


@dataclass(frozen=True)
class Criterion:
    """One of torch-pruning's classes, with its options."""

    name: str
    options: Mapping[str, Any]

    def scorer(self) -> Any:
        """The object that scores a group.

        Raises:
            UsageError: torch-pruning cannot be imported.
        """
        return getattr(torch_pruning().importance, self.name)(**self.options)


@dataclass(frozen=True)
class Part:
    """One axis of one module: the channel sets `(C,)` along it, and torch-pruning's function that cuts it."""

    path: str
    module: nn.Module
    cut: Any
    sets: np.ndarray


def importance(criterion: Criterion, model: nn.Module, channels: Channels) -> dict[str, np.ndarray]:
    """The scores `(C,)` of the filters of every convolution and linear layer alone.

    Raises:
        UsageError: torch-pruning cannot be imported.
    """
    scorer, outputs = criterion.scorer(), output_parts(model, channels)
    return {
        part.path: as_scores(scorer(group_of([(part, list(range(part.sets.size)), list(range(part.sets.size)))])))
        for part in outputs
        if not channels.pinned[part.sets].any()
    }


def group_importance(criterion: Criterion, model: nn.Module, channels: Channels) -> dict[str, np.ndarray]:
    """The scores `(C,)` of the outputs of every layer with all that is removed with them.

    These are the filters of layers that share the channels, the BatchNorms that scale them, and the weights that read
    them, as in a group of torch-pruning; which these are is what slimnet's trace says.

    Raises:
        UsageError: torch-pruning cannot be imported.
    """
    scorer, outputs = criterion.scorer(), output_parts(model, channels)
    parts = [*outputs, *norm_parts(model, channels), *input_parts(model, channels)]
    parts = [part for part in parts if isinstance(part.module, tuple(scorer.target_types))]
    touching: defaultdict[int, list[int]] = defaultdict(list)
    for number, part in enumerate(parts):
        for member in np.unique(part.sets).tolist():
            touching[member].append(number)
    found = {}
    for layer in outputs:
        if channels.pinned[layer.sets].any():
            continue
        members, positions = np.unique(layer.sets, return_inverse=True)
        together = sorted({number for member in members.tolist() for number in touching[member]})
        group = joined(layer, [parts[number] for number in together], members)
        if group:
            found[layer.path] = as_scores(scorer(group_of(group)))[positions]
    return found


Entry = tuple[Part, list[int], list[int]]
"""A part, positions along it, and the position of the channel of each in the group."""


def joined(layer: Part, parts: list[Part], members: np.ndarray) -> list[Entry]:
    """The parts with these sets, first one that has each of them once, as torch-pruning needs it; empty without one."""
    found: list[Entry] = []
    for part in parts:
        place = np.searchsorted(members, part.sets).clip(max=members.size - 1)
        positions = np.flatnonzero(members[place] == part.sets)
        found.append((part, positions.tolist(), place[positions].tolist()))
    found.sort(key=lambda entry: (len(entry[1]) != members.size, entry[0].path != layer.path))
    return found if found and sorted(found[0][2]) == list(range(members.size)) else []


def output_parts(model: nn.Module, channels: Channels) -> list[Part]:
    """The outputs of every convolution and linear layer."""
    package, modules = torch_pruning(), dict(model.named_modules())
    found = []
    for path, sets in channels.layers.items():
        module = modules[path]
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            linear = isinstance(module, nn.Linear)
            cut = package.prune_linear_out_channels if linear else package.prune_conv_out_channels
            found.append(Part(path, module, cut, sets))
    return found


def input_parts(model: nn.Module, channels: Channels) -> list[Part]:
    """The inputs of every convolution and linear layer that mixes channels."""
    package, modules = torch_pruning(), dict(model.named_modules())
    found = []
    for path, step in channels.steps.items():
        module = modules[path]
        if isinstance(step, Reader) and isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            linear = isinstance(module, nn.Linear)
            cut = package.prune_linear_in_channels if linear else package.prune_conv_in_channels
            found.append(Part(path, module, cut, channels.sets[step.inputs]))
    return found


def norm_parts(model: nn.Module, channels: Channels) -> list[Part]:
    """The channels of every BatchNorm."""
    package, modules = torch_pruning(), dict(model.named_modules())
    paths = {gamma.rpartition(".")[0]: norm for gamma, norm in channels.graph.norms}
    return [
        Part(path, modules[path], package.prune_batchnorm_out_channels, channels.sets[norm.out])
        for path, norm in paths.items()
    ]


def group_of(entries: list[Entry]) -> Any:
    """A group of torch-pruning."""
    package = torch_pruning()
    group = package.dependency.Group()
    for number, (part, positions, roots) in enumerate(entries):
        node = package.dependency.Node(part.module, None, part.path)
        group.add_dep(package.dependency.Dependency(part.cut, part.cut, node, node), positions)
        group[number].root_idxs = roots
    return group


def as_scores(found: Any) -> np.ndarray:
    """Scores as an array; what a criterion cannot divide, as a filter of zeros in LAMP, is 0."""
    return np.nan_to_num(found.cpu().double().numpy(), posinf=0.0, neginf=0.0)
