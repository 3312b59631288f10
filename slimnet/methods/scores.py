"""score_channels: the order in which a method removes the channels of a network."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from slimnet.errors import DataError, UsageError, check_name
from slimnet.graph.channel_graph import Reader
from slimnet.methods.candidates import Channels
from slimnet.methods.filter_norms import filter_norms, relative
from slimnet.methods.reader_importance import strengths
from slimnet.modules.copying import copy_with
from slimnet.modules.example_inputs import ExampleInputs, check_inputs
from slimnet.modules.network import Network
from slimnet.planning.dead_channels import check_threshold
from slimnet.torch_state.devices import device_of
from slimnet.training.recipe.channel_cost import layer_macs, parameter_sizes, savings
from slimnet.training.recipe.recipe import Cost

Scores = dict[str, np.ndarray]
MEAN = {"normalizer": "mean"}
"""The option of torch-pruning by which scores are divided by their mean, which makes layers comparable."""
DEAD_BELOW = 1e-3
"""The |γ| below which channels are dead for the method `implicit` (paper, section 2.1)."""


@dataclass(frozen=True)
class Ranking:
    """A score `(C,)` for every output channel of the ranked layers; the lowest are removed first.

    `threshold` is the |γ| below which channels are removed in any case, as in `Selection`.
    """

    method: str
    scores: Mapping[str, np.ndarray]
    threshold: float = 0.0


@dataclass(frozen=True)
class Task:
    """The input of a method."""

    model: nn.Module
    channels: Channels
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]] | None
    seed: int
    cost: Cost


def score_channels(
    method: str,
    model: nn.Module,
    inputs: ExampleInputs,
    *,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]] | None = None,
    seed: int = 0,
    cost: Cost = "macs",
    threshold: float = DEAD_BELOW,
) -> Ranking:
    """Score every channel that a method may remove.

    * "implicit": the importance of the channel for its readers (see `strengths`) divided by its cost (`cost`, paper
      section 5); channels with |γ| below `threshold`, which are dead anyway, come first.
    * "li2017": the sum |F| of a filter divided by its layer's mean (Li et al. 2017), for convolutions that are the only
      writers of their channels; in a residual block all except the last.
    * "liu2017": |γ| (Liu et al. 2017, Network Slimming).
    * "random": drawn from `seed`.
    * "fpgm", "taylor": torch-pruning's importance of each layer's own filters (He et al. 2019; Molchanov et al. 2019).
    * "group-l1", "group-l2", "group-taylor": torch-pruning's magnitude Σ|w| or Σw², or its first-order effect on the
      loss, of all weights that are removed with a channel: filters, BatchNorms, and those that read it (Fang et al.
      2023, DepGraph), divided by their mean.
    * "bnscale": torch-pruning's |γ|, divided by the mean over the channels of a group (Liu et al. 2017).
    * "lamp": its magnitude Σw² of a group, divided by that of all channels that are not smaller (Lee et al. 2021).

    "taylor" and "group-taylor" need the gradients on `batches` of images and labels.

    If several BatchNorms scale one channel, as along a residual stream, the score is their mean.

    Raises:
        UsageError: the method is unknown or cannot rank any channel of the network, or needs batches and has none.
        TraceError, InputError: as `slimnet.slim` does.
    """
    score = require_method(method, with_batches=batches is not None)
    channels = Channels.of(model, check_inputs(model, inputs))
    scores = score(Task(model, channels, batches, seed, cost))
    if not scores:
        raise UsageError(f"{type(model).__name__} has no channels that {method} could rank")
    return Ranking(method, scores, check_threshold(threshold) if method == "implicit" else 0.0)


def require_method(method: str, *, with_batches: bool) -> Callable[[Task], Scores]:
    """The function of a method by its name, if its requirements are met.

    Raises:
        UsageError: there is none, or it needs batches.
    """
    score = named(method)
    if method in NEED_BATCHES and not with_batches:
        raise UsageError(f"{method} needs labelled images, on which it takes gradients; pass batches=")
    return score


def named(method: str) -> Callable[[Task], Scores]:
    """The function of a method by its name.

    Raises:
        UsageError: there is none; it suggests the nearest.
    """
    check_name("method", method, SCORES)
    return SCORES[method]


def implicit(task: Task) -> Scores:
    """The importance of a channel for its readers, divided by its relative cost (section 5)."""
    channels = task.channels
    sets, graph = channels.sets, channels.graph
    pieces = layer_macs(graph, sets) if task.cost == "macs" else parameter_sizes(graph, sets, task.model)
    cost = savings(pieces, channels.pinned.size)
    free = (cost > 0) & ~channels.pinned
    relative_cost = np.where(free, cost / cost[free].mean() if free.any() else cost, 1.0)
    return by_layer(channels, np.where(free, strengths(task.model, channels) / relative_cost, np.nan))


def liu2017(task: Task) -> Scores:
    """|γ| (Liu et al. 2017, section 3)."""
    return by_layer(task.channels, gamma_of_sets(task)[0])


def gamma_of_sets(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """The mean |γ| over the BatchNorms of every set, NaN without, and their number.

    Raises:
        UsageError: there is no BatchNorm with a γ.
    """
    channels, tensors = task.channels, Network.of(task.model).tensors.parameters
    if not channels.graph.scales:
        raise UsageError(
            f"{type(task.model).__name__} has no BatchNorm whose γ could be ranked; "
            "take implicit, li2017, fpgm, taylor or random"
        )
    members = np.concatenate([channels.sets[norm.out] for _, norm in channels.graph.norms])
    gammas = torch.cat([tensors[gamma].detach().abs().cpu().double() for gamma, _ in channels.graph.norms])
    count = np.bincount(members, minlength=channels.pinned.size)
    total = np.bincount(members, gammas.numpy(), minlength=channels.pinned.size)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan), count


def by_layer(channels: Channels, scores: np.ndarray) -> Scores:
    """The scores of sets by layer, without layers that have a channel without a score."""
    found = {layer: scores[sets] for layer, sets in channels.layers.items() if not channels.pinned[sets].any()}
    return {layer: values for layer, values in found.items() if not np.isnan(values).any()}


def li2017(task: Task) -> Scores:
    """The sum |F| divided by its layer's mean, for the only writers of their channels (Li et al. 2017, section 3).

    A filter of a depthwise convolution is scored together with the filter that computes its input.
    """
    channels = task.channels
    readers = [step.module for step in channels.steps.values() if isinstance(step, Reader)]
    shared = (channels.count(readers) > 1) | channels.pinned
    linear = {layer for layer, step in channels.steps.items() if isinstance(step, Reader) and step.kind == "linear"}
    return {
        layer: relative(filter_norms(task.model, channels, layer))
        for layer, sets in channels.layers.items()
        if layer not in linear and not shared[sets].any()
    }


def random(task: Task) -> Scores:
    """The same random score for all channels that are removed together."""
    draws = np.random.default_rng(task.seed).random(task.channels.pinned.size)
    return by_layer(task.channels, draws)


def fpgm(task: Task) -> Scores:
    """The distance of a filter to the others of its layer, by torch-pruning."""
    from slimnet.methods.torch_pruning_scores import Criterion, importance

    return importance(Criterion("FPGMImportance", MEAN), task.model, task.channels)


def taylor(task: Task) -> Scores:
    """The first-order effect of a filter on the loss, by torch-pruning.

    Raises:
        DataError: there are no batches.
    """
    from slimnet.methods.torch_pruning_scores import Criterion, importance

    return importance(Criterion("TaylorImportance", MEAN), with_gradients(task, "taylor"), task.channels)


def group_l1(task: Task) -> Scores:
    """Σ|w| of all weights that are removed with a channel, by torch-pruning (Fang et al. 2023)."""
    return by_group(task.model, task.channels, "GroupMagnitudeImportance", p=1, **MEAN)


def group_l2(task: Task) -> Scores:
    """Σw² of all weights that are removed with a channel, by torch-pruning (Fang et al. 2023)."""
    return by_group(task.model, task.channels, "GroupMagnitudeImportance", p=2, **MEAN)


def bnscale(task: Task) -> Scores:
    """|γ| divided by the mean of its group, by torch-pruning (Liu et al. 2017)."""
    return by_group(task.model, task.channels, "BNScaleImportance", **MEAN)


def lamp(task: Task) -> Scores:
    """Σw² of a group divided by that of all channels that are not smaller, by torch-pruning (Lee et al. 2021)."""
    return by_group(task.model, task.channels, "LAMPImportance", p=2)


def group_taylor(task: Task) -> Scores:
    """The first-order effect on the loss of all weights that are removed with a channel, by torch-pruning.

    Raises:
        DataError: there are no batches.
    """
    return by_group(with_gradients(task, "group-taylor"), task.channels, "GroupTaylorImportance", **MEAN)


def by_group(model: nn.Module, channels: Channels, name: str, **options: Any) -> Scores:
    """The scores by one of torch-pruning's classes, of all that is removed with a channel."""
    from slimnet.methods.torch_pruning_scores import Criterion, group_importance

    return group_importance(Criterion(name, options), model, channels)


def with_gradients(task: Task, method: str) -> nn.Module:
    """A copy of the network, in evaluation mode, with the gradients of the cross-entropy summed over the batches.

    The batches are moved to the network's device.
    """
    assert task.batches is not None, "refused before"
    copied = copy_with(task.model, lambda _, tensor: tensor.detach().clone()).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    seen, place = 0, device_of(copied)
    with torch.enable_grad():
        for images, labels in task.batches:
            F.cross_entropy(copied(images.to(place)), labels.to(place), reduction="sum").backward()
            seen += len(labels)
    if not seen:
        raise DataError(f"{method} was given no batches of images and labels")
    return copied


SCORES: dict[str, Callable[[Task], Scores]] = {
    "implicit": implicit,
    "li2017": li2017,
    "liu2017": liu2017,
    "random": random,
    "fpgm": fpgm,
    "taylor": taylor,
    "group-l1": group_l1,
    "group-l2": group_l2,
    "group-taylor": group_taylor,
    "bnscale": bnscale,
    "lamp": lamp,
}
METHODS = tuple(SCORES)
NEED_BATCHES = frozenset(["taylor", "group-taylor"])
