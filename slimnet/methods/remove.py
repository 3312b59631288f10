"""The channels that a method selects: masked exactly in a copy of the network, and removed by the exact surgery."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from slimnet.errors import UsageError
from slimnet.graph.channel_graph import ChannelGraph, Depthwise, Reader
from slimnet.graph.labels import Labels
from slimnet.methods.batchnorm_estimate import recalibrated
from slimnet.methods.batchnorm_measure import measured
from slimnet.methods.candidates import Channels, can_be_masked, sibling
from slimnet.methods.filter_norms import by_output
from slimnet.methods.refit import Watch, refit_weights
from slimnet.modules.copying import copy_with
from slimnet.modules.example_inputs import ExampleInputs, Inputs, check_inputs
from slimnet.modules.loaders import RepeatedLoader
from slimnet.modules.network import Network
from slimnet.pipeline import as_rounding, certify_or_raise, plan_and_apply
from slimnet.planning.asked_layers import find_layers
from slimnet.planning.dead_channels import GAMMA, DeadChannels, find_dead, require_criterion
from slimnet.planning.make_plan import dead_by_layer
from slimnet.planning.width_rounding import Rounding
from slimnet.slimmed import Slimmed
from slimnet.storage.field_types import Count
from slimnet.surgery.certificate_data import CHOSEN_AT_ZERO, DENSE, FITTED, RE_ESTIMATED, REBIASED
from slimnet.surgery.cut_history import revise_cut
from slimnet.surgery.plan import SurgeryPlan
from slimnet.surgery.plan_data import WidthTrial


@dataclass(frozen=True)
class Selection:
    """The channels that a method removes: output channels by layer (module path of a convolution or linear layer).

    `threshold` is the |γ| below which channels are dead: they are removed too, with their constants. `purpose` is the
    purpose of the choice, such as a budget. With another `criterion` than "gamma", channels that are dead by it in the
    masked network are removed too, whatever their γ. The layers that `keep` names, as `slim` takes them, stay at their
    widths.
    """

    method: str
    channels: Mapping[str, tuple[Count, ...]]
    threshold: float = 0.0
    purpose: str = ""
    criterion: str = GAMMA
    keep: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """The number of chosen channels in all layers."""
        return sum(map(len, self.channels.values()))

    def __str__(self) -> str:
        if self.criterion != GAMMA:
            return f"criterion {self.criterion}, and {self.chosen}"
        return f"|γ| < {self.threshold:g}, and {self.chosen}" if self.threshold else self.chosen

    @property
    def chosen(self) -> str:
        """The number of chosen channels, the method and the purpose, in words."""
        purpose = f" for {self.purpose}" if self.purpose else ""
        return f"{self.count} channels chosen by {self.method}{purpose}"


@dataclass(frozen=True)
class ChosenWidths:
    """A multiple for the widths that was chosen by measurement, and what the plan says of that."""

    multiple: int
    rounding: str
    trials: tuple[WidthTrial, ...]


RoundTo = int | Mapping[str, int] | Rounding | ChosenWidths | None
"""What the widths of a selection are rounded up to."""


def mask_selected(
    model: nn.Module,
    inputs: ExampleInputs,
    selection: Selection,
    *,
    recalibrate: bool = True,
    images: Iterable[Any] | None = None,
    refit: bool = False,
) -> nn.Module:
    """The masked network: a copy in which every chosen channel is exactly 0 after its BatchNorm.

    The filter and bias of a chosen channel are set to zero, and so are γ and β of every BatchNorm that reads it, or
    that scales a channel all of whose writers are chosen (as in a residual stream). With `recalibrate` the BatchNorms
    downstream of its readers get the mean and variance without the masked channels, estimated from the other BatchNorms
    (see `recalibrated`), or measured on `images`, a hundred or more without labels (see `measured`). With `refit` the
    remaining weights are fitted on these images instead (see `refit_weights`), which is slower and much closer to the
    dense network. `model` is not modified.

    Raises:
        UsageError: the selection contains a layer or a channel that the network does not have, or a layer whose weight
            is computed, or BatchNorms cannot be measured on these images, or there are none to fit weights on.
        TraceError, InputError: as `slimnet.slim` does.
    """
    check_correction(images, recalibrate=recalibrate, refit=refit)
    given = check_inputs(model, inputs)
    channels = Channels.of(model, given)
    quiet = masked_copy(model, channels, selection, shared=False)
    return corrected(model, quiet, given, channels, selection, images, refit) if recalibrate else quiet


def remove_selected(
    model: nn.Module,
    inputs: ExampleInputs,
    selection: Selection,
    *,
    loader: Iterable[Any] | None = None,
    round_to: RoundTo = None,
    recalibrate: bool = True,
    images: Iterable[Any] | None = None,
    refit: bool = False,
    watch: Watch | None = None,
    tolerance: float | None = None,
    float64: bool = False,
) -> Slimmed:
    """Remove the selected channels: mask them in a copy, and slim that copy exactly.

    With `recalibrate` the masked network's BatchNorm statistics are re-estimated without the removed channels, which
    needs no data and makes the error before fine-tuning much lower; with `images`, as in `mask_selected`, it is still
    lower, and with `refit` the lowest. `watch` is called with the number of layers fitted so far and of all.
    The certificate is against the masked and corrected network, not against `model`, since a method selects live
    channels; its `reference` says what was corrected. A criterion that needs data is measured on `loader`. The
    other arguments are those of `slimnet.slim`.

    Raises:
        CertificateError: the slim network differs from the masked one by more than `tolerance`.
        UsageError, TraceError, InputError: as `mask_selected`.
    """
    if require_criterion(selection.criterion, with_data=loader is not None).needs_data and loader is not None:
        loader = RepeatedLoader(loader)
    check_correction(images, recalibrate=recalibrate, refit=refit)
    given = check_inputs(model, inputs)
    channels = Channels.of(model, given)
    quiet = masked = masked_copy(model, channels, selection)
    if recalibrate:
        quiet = corrected(model, masked, given, channels, selection, images, refit, watch)
    narrow, plan = operated(quiet, given, selection, round_to, loader)
    plan = revise_cut(narrow, plan, count_live(model, channels, selection, plan, loader))
    slimmed = certify_or_raise(quiet, narrow, plan, given, loader=loader, tolerance=tolerance, float64=float64)
    reference = correction_in_words(channels, refit=refit) if quiet is not masked else CHOSEN_AT_ZERO
    certificate = dataclasses.replace(slimmed.certificate, reference=reference if selection.count else DENSE)
    return dataclasses.replace(slimmed, certificate=certificate)


def plan_for(
    model: nn.Module,
    inputs: ExampleInputs,
    selection: Selection,
    *,
    round_to: RoundTo = None,
) -> SurgeryPlan:
    """The plan that `remove_selected` applies; the network is not run.

    Raises:
        UsageError, TraceError, InputError: as `mask_selected`; a criterion that needs data is refused.
    """
    if require_criterion(selection.criterion, with_data=True).needs_data:
        raise UsageError(f"criterion {selection.criterion} is measured on data; take the plan of remove_selected")
    given = check_inputs(model, inputs)
    channels = Channels.of(model, given)
    return count_live(model, channels, selection, plan_and_mask(model, given, channels, selection, round_to)[1])


def plan_and_mask(
    model: nn.Module,
    inputs: Inputs,
    channels: Channels,
    selection: Selection,
    round_to: RoundTo,
) -> tuple[nn.Module, SurgeryPlan]:
    """The slim network with its final widths, without recalibration, and its plan."""
    return operated(masked_copy(model, channels, selection), inputs, selection, round_to)


def operated(
    quiet: nn.Module,
    inputs: Inputs,
    selection: Selection,
    round_to: RoundTo,
    loader: Iterable[Any] | None = None,
) -> tuple[nn.Module, SurgeryPlan]:
    """The slim network and its plan, made from the masked one."""

    def find(graph: ChannelGraph) -> DeadChannels:
        dead = find_dead(quiet, graph, selection.threshold, selection.criterion, loader, selection.keep)
        text = str(selection) if selection.criterion == GAMMA else f"{dead.criterion}, and {selection.chosen}"
        return dataclasses.replace(dead, criterion=text)

    if not isinstance(round_to, ChosenWidths):
        return plan_and_apply(quiet, inputs, find, as_rounding(round_to))
    narrow, plan = plan_and_apply(quiet, inputs, find, as_rounding(round_to.multiple))
    revised = dataclasses.replace(plan, rounding=round_to.rounding, trials=round_to.trials)
    return narrow, revise_cut(narrow, plan, revised)


def count_live(
    model: nn.Module,
    channels: Channels,
    selection: Selection,
    plan: SurgeryPlan,
    loader: Iterable[Any] | None = None,
) -> SurgeryPlan:
    """A plan for the masked network that says how many of the channels it removes were alive in the dense one."""
    if not selection.count:
        return plan
    found = find_dead(model, channels.graph, selection.threshold, selection.criterion, loader)
    kept: defaultdict[str, set[int]] = defaultdict(set)
    for each in plan.kept:
        kept[each.layer].update(each.channels)
    dead = sum(len(set(dead) - kept[layer]) for layer, dead in dead_by_layer(channels.graph, found).items())
    return dataclasses.replace(plan, live=max(plan.removed_channels - dead, 0))


def check_correction(images: Iterable[Any] | None, *, recalibrate: bool, refit: bool) -> None:
    """Refuse a fit without images, or in a network that is to be left as the mask leaves it.

    Raises:
        UsageError: either.
    """
    if refit and images is None:
        raise UsageError("weights are fitted on images; give images=, a few hundred without labels")
    if refit and not recalibrate:
        raise UsageError("refit=True corrects the network, recalibrate=False leaves it alone; choose one")


def corrected(
    model: nn.Module,
    quiet: nn.Module,
    inputs: Inputs,
    channels: Channels,
    selection: Selection,
    images: Iterable[Any] | None,
    refit: bool = False,
    watch: Watch | None = None,
) -> nn.Module:
    """The masked network with BatchNorm statistics re-estimated without the removed channels, or weights fitted."""
    masked = wholly_chosen(channels, selection)
    if refit and images is not None:
        return refit_weights(model, quiet, channels, images, watch) if masked.any() else quiet
    estimated = recalibrated(quiet, inputs, channels, masked, selection.threshold)
    if images is None or not masked.any():
        return estimated
    return measured(model, estimated, images, selection.threshold)


def correction_in_words(channels: Channels, *, refit: bool) -> str:
    """What a certificate is relative to after `corrected` has changed the masked network."""
    if refit:
        return FITTED
    return RE_ESTIMATED if channels.graph.norms else REBIASED


def masked_copy(model: nn.Module, channels: Channels, selection: Selection, *, shared: bool = True) -> nn.Module:
    """The masked copy of a traced network; with `shared` it shares the tensors that do not change.

    Raises:
        UsageError: as `mask_selected`.
    """
    tensors = Network.of(model).named
    quiet: dict[int, torch.Tensor] = {}

    def zero(name: str, rows: np.ndarray, view: Any) -> None:
        tensor = quiet.setdefault(id(tensors[name]), tensors[name].detach().clone())
        view(tensor)[torch.from_numpy(rows).to(tensor.device)] = 0

    with torch.no_grad():
        for step, rows in chosen_outputs(channels, selection):
            zero_filters(zero, tensors, step, rows)
        for gamma, rows in chosen_scales(channels, selection):
            for name in (gamma, sibling(gamma, "bias")):
                if name in tensors:
                    zero(name, rows, lambda tensor: tensor)

    def replace(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return quiet.get(id(tensor), tensor if shared else tensor.detach().clone())

    return copy_with(model, replace, tensors)


def chosen_outputs(channels: Channels, selection: Selection) -> Iterator[tuple[Reader | Depthwise, np.ndarray]]:
    """Every layer with chosen channels, and their positions among its outputs.

    Raises:
        UsageError: there is no such layer or channel.
    """
    steps = channels.steps
    kept = find_layers(channels.graph, selection.keep)
    for layer, chosen in selection.channels.items():
        if layer in kept:
            raise UsageError(f"channels of {layer} are chosen, which is to be kept; choose others, or change keep=")
        if layer not in steps:
            raise UsageError(f"the network has no convolution or linear layer {layer}, of which channels are chosen")
        width = steps[layer].outputs.size
        rows = np.array(chosen, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < width:
            raise UsageError(f"channels of {layer} are chosen outside 0..{width - 1}")
        if rows.size:
            yield steps[layer], rows


def zero_filters(zero: Any, tensors: Mapping[str, torch.Tensor], step: Reader | Depthwise, rows: np.ndarray) -> None:
    """Zero the filters and biases of some output channels of one layer."""
    if not can_be_masked(step) or step.weight is None:
        raise UsageError(
            f"channels of {step.module} cannot be masked one by one: its weight is computed, or that of a grouped "
            "transposed convolution; leave it out"
        )
    zero(step.weight, rows, lambda weight: by_output(weight, step))
    bias = step.bias_name if isinstance(step, Reader) else sibling(step.weight, "bias")
    if step.bias is not None and bias in tensors:
        zero(bias, rows, lambda tensor: tensor)


def chosen_scales(channels: Channels, selection: Selection) -> Iterator[tuple[str, np.ndarray]]:
    """Every γ with channels to mask, and their positions in it."""
    graph, sets = channels.graph, channels.sets
    labels = chosen_labels(channels, selection)
    whole = wholly_chosen(channels, selection)
    for gamma, norm in graph.norms:
        rows = np.flatnonzero(np.isin(norm.inputs, labels) | whole[sets[norm.out]])
        if rows.size:
            yield gamma, rows


def chosen_labels(channels: Channels, selection: Selection) -> Labels:
    """The labels of all chosen output channels."""
    outputs = [step.outputs[rows] for step, rows in chosen_outputs(channels, selection)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *outputs])


def wholly_chosen(channels: Channels, selection: Selection) -> np.ndarray:
    """For every set whether all of its writers are chosen."""
    members = np.bincount(channels.sets[chosen_labels(channels, selection)], minlength=channels.pinned.size)
    return (members > 0) & (members >= channels.writers)
