"""score_channels: the order in which a method removes the channels of a network."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from slimnet.errors import DataError, UsageError, nearest_name
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
    * "fpgm", "taylor": torch-pruning's importance of each layer's own filters (He et al. 2019; Molchanov et al. 2019);
      "taylor" needs the gradients on `batches` of images and labels.

    If several BatchNorms scale one channel, as along a residual stream, the score is their mean.

    Raises:
        UsageError: the method is unknown or cannot rank any channel of the network, or "taylor" has no batches.
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
    if method in SCORES:
        return SCORES[method]
    raise UsageError(f"there is no method {method!r}; {nearest_name(method, SCORES)}")


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
    from slimnet.methods.torch_pruning_scores import importance

    return importance("FPGMImportance", task.model, task.channels)


def taylor(task: Task) -> Scores:
    """The first-order effect of a filter on the loss, by torch-pruning.

    Raises:
        DataError: there are no batches.
    """
    from slimnet.methods.torch_pruning_scores import importance

    assert task.batches is not None, "refused before"
    return importance("TaylorImportance", with_gradients(task.model, task.batches), task.channels)


def with_gradients(model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> nn.Module:
    """A copy of the network, in evaluation mode, with the gradients of the cross-entropy summed over the batches.

    The batches are moved to the network's device.
    """
    copied = copy_with(model, lambda _, tensor: tensor.detach().clone()).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    seen, place = 0, device_of(copied)
    with torch.enable_grad():
        for images, labels in batches:
            F.cross_entropy(copied(images.to(place)), labels.to(place), reduction="sum").backward()
            seen += len(labels)
    if not seen:
        raise DataError("taylor was given no batches of images and labels")
    return copied


SCORES: dict[str, Callable[[Task], Scores]] = {
    "implicit": implicit,
    "li2017": li2017,
    "liu2017": liu2017,
    "random": random,
    "fpgm": fpgm,
    "taylor": taylor,
}
METHODS = tuple(SCORES)
NEED_BATCHES = frozenset(["taylor"])
