"""apply_plan: make the slim network; the dense one is never modified."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from slimnet.arguments import check_type
from slimnet.errors import PlanError
from slimnet.graph.channel_graph import SILENT
from slimnet.models.compensated_norm import compensate
from slimnet.modules.attributes import set_integer
from slimnet.modules.copying import copied, copy_with
from slimnet.modules.network import Network
from slimnet.modules.width_attributes import set_features, set_padding, stored, submodule, update_width_attributes
from slimnet.surgery.cut_history import record_cut
from slimnet.surgery.plan import SurgeryPlan
from slimnet.surgery.plan_data import GroupCut, Merge
from slimnet.torch_state.precision import in_double, numbers
from slimnet.torch_state.process import collection_paused


@torch.inference_mode(False)
@collection_paused()
def apply_plan(model: nn.Module | Network, plan: SurgeryPlan, *, borrow: bool = False) -> nn.Module:
    """Make a slim copy of a dense network: the same class, mode, device, dtypes and requires_grad.

    LayerNorms from which constant channels are removed become
    `slimnet.models.compensated_norm.CompensatedLayerNorm`. With `borrow`, tensors that do not change are shared with
    the dense network, until `independent` copies them.

    Raises:
        PlanError: the plan was made for another network, or is not consistent.
        UsageError: `model` is no module, or `plan` no plan.
    """
    network = Network.of(model)
    check_type("plan", plan, SurgeryPlan, "pass the plan of a slimmed network, or SurgeryPlan.from_json of a file")
    plan.check_fits(network.name, network.tensors)
    surgeon = Surgeon(plan, network.tensors.parameters, borrow)
    with torch.no_grad():
        slim, copier = copied(network, surgeon.operate, largest_first(network.named))
        set_widths(copier.network(network), plan)
        surgeon.add_biases(slim)
    record_cut(slim, plan)
    return slim


def set_widths(network: Network, plan: SurgeryPlan) -> None:
    """Make the attributes of a network whose tensors a plan has cut fit them: widths, groups, and other sizes."""
    update_width_attributes(network, {group.weight: group.groups_after for group in plan.groups})
    for padding in plan.paddings:
        set_padding(network.module, padding.module, padding.before, padding.after)
    for cut in plan.attributes:
        set_integer(network, cut.module, cut.attribute, cut.before, cut.after)
    for each in plan.compensations:
        compensate(submodule(network.module, each.module), each.module, each.total, each.mean, each.spread)
    for count in plan.features:
        set_features(network.module, count.module, count.channels)


def largest_first(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors in the order of their size: the room that is free after a large one is cut is enough for those behind."""
    return dict(sorted(tensors.items(), key=lambda item: -item[1].nbytes))


@torch.inference_mode(False)
def independent(slim: nn.Module | Network, dense: nn.Module | Network) -> nn.Module:
    """A slim network with copies of the tensors that it has borrowed from the dense one."""
    lent = {id(tensor) for tensor in Network.of(dense).named.values()}
    with torch.no_grad():
        return copy_with(slim, lambda _, tensor: tensor.clone() if id(tensor) in lent else tensor)


class Surgeon:
    """Rewrites one tensor at a time, so that no more than one of them exists twice."""

    def __init__(self, plan: SurgeryPlan, dense: Mapping[str, torch.Tensor], borrow: bool):
        self.plan = plan
        self.dense = dense
        self.borrow = borrow
        self.cuts: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
        for cut in plan.cuts:
            self.cuts.setdefault(cut.tensor, []).append((cut.axis, cut.keep))
        self.indices: dict[tuple[int, torch.device], torch.Tensor] = {}
        self.groups = {group.weight: group for group in plan.groups}
        self.merges = {merge.weight: merge for merge in plan.merges}
        self.zeroed = {zeroed.tensor: zeroed.channels for zeroed in plan.zeroed}
        self.folds = {fold.bias: fold for fold in plan.folds}

    def operate(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as the slim network has it."""
        new = tensor
        if name in self.zeroed:
            beta = self.dense.get(f"{name.removesuffix('weight')}bias")
            new = silenced(tensor, beta, np.array(self.zeroed[name], dtype=np.int64))
        if name in self.merges:
            new = merged(new, self.merges[name], self.groups.get(name))
        if name in self.groups:
            new = regrouped(new, self.groups[name])
        if name in self.cuts:
            new = selected(new, [(axis, self.index(keep, new.device)) for axis, keep in self.cuts[name]])
        if name in self.folds:
            new = new + self.increments(name, new.numel()).to(new.device, new.dtype)
        if new is tensor and self.borrow:
            return tensor
        if new is tensor or new._is_view():
            new = new.clone()
        return as_laid_out(new, tensor)

    def index(self, keep: tuple[int, ...], device: torch.device) -> torch.Tensor:
        """Positions to keep as an index; most axes are cut like others, and share one tuple."""
        index = self.indices.get((id(keep), device))
        if index is None:
            index = self.indices[id(keep), device] = torch.from_numpy(np.array(keep, dtype=np.int64)).to(device)
        return index

    def increments(self, bias: str, count: int) -> torch.Tensor:
        """What the removed constants add to a bias of `count` channels, float64."""
        values = torch.from_numpy(np.array(self.folds[bias].increments, dtype=np.float64))
        if values.numel() != count:
            raise PlanError(f"the plan adds {values.numel()} numbers to {bias}, which has {count}")
        return values

    def add_biases(self, slim: nn.Module) -> None:
        """Give a bias to the layers that fold constants and had none."""
        for name in self.folds:
            if name in self.dense:
                continue
            path = name.rpartition(".")[0]
            module = submodule(slim, path)
            if not isinstance(module, nn.Linear | nn.modules.conv._ConvNd) or module.bias is not None:
                raise PlanError(f"the plan gives a bias to {path}, which is not a layer without one")
            weight = stored(module, "weight")
            values = self.increments(name, output_count(module)).to(weight.device, weight.dtype)
            bias = nn.Parameter(values, requires_grad=weight.requires_grad)
            # Past the module's `__setattr__`, where it has a place for the bias: that costs more than all of the above.
            if "bias" in module._parameters:
                module._parameters["bias"] = bias
            else:
                module.bias = bias


def silenced(gamma: torch.Tensor, beta: torch.Tensor | None, channels: np.ndarray) -> torch.Tensor:
    """A copy of γ that is `SILENT` at some channels; where γ and β are both zero they stay so."""
    new = gamma.clone()
    # Where NumPy reads the memory of the copy, writing into `flat` writes into it as well.
    flat = numbers(new.view(-1))
    shift = None if beta is None or beta.numel() != new.numel() else numbers(beta).reshape(-1)
    moves: Any = flat[channels] != 0
    if shift is not None:
        moves |= shift[channels] != 0
    if isinstance(flat, np.ndarray):
        flat[channels] = np.where(moves, SILENT, 0.0)
    else:
        flat[channels] = torch.where(moves, SILENT, 0.0).to(new.dtype)
    return new


def output_count(module: nn.Module) -> int:
    """The number of output channels of a layer, from its weight."""
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return stored(module, "weight").shape[1] * module.groups
    return stored(module, "weight").shape[0]


def merged(weight: torch.Tensor, merge: Merge, group: GroupCut | None) -> torch.Tensor:
    """Add the removed input channels, scaled by their constants' ratios, to their carriers (float64 inside)."""
    wide = in_double(weight)
    wide = wide.clone() if wide is weight else wide
    groups = 1 if group is None else group.groups_before
    rows = wide.shape[0] // groups
    per_group = wide.shape[1] if merge.axis == 1 else rows
    for carrier, source, ratio in zip(merge.carriers, merge.sources, merge.ratios, strict=True):
        if carrier // per_group != source // per_group:
            raise PlanError(f"the plan merges channels of different groups of {merge.weight}")
        block = wide[source // per_group * rows : (source // per_group + 1) * rows]
        block.select(merge.axis, carrier % per_group).add_(block.select(merge.axis, source % per_group), alpha=ratio)
    return wide.to(weight)


def regrouped(weight: torch.Tensor, group: GroupCut) -> torch.Tensor:
    """The weight `(O, I / groups, ...)` of a grouped convolution with its new groups.

    Taps between channels of one old group are kept, those between channels of different old groups are zero.
    """
    per_group = weight.shape[1]
    rows = weight.shape[0] // group.groups_before
    outputs = np.array(group.outputs).reshape(group.groups_after, -1, 1)
    inputs = np.array(group.inputs).reshape(group.groups_after, 1, -1)
    taps = weight[torch.from_numpy(outputs).to(weight.device), torch.from_numpy(inputs % per_group).to(weight.device)]
    mask = torch.from_numpy(outputs // rows == inputs // per_group).to(weight.device)
    return torch.where(mask.reshape(*mask.shape, *[1] * (weight.ndim - 2)), taps, 0).flatten(0, 1)


def selected(tensor: torch.Tensor, cuts: Sequence[tuple[int, torch.Tensor]]) -> torch.Tensor:
    """A tensor cut along some axes. Kernels of several taps are copied whole, once for both of their channel axes."""
    several = len(cuts) == 2 and tensor.is_contiguous() and math.prod(tensor.shape[2:]) > 1
    if not several or (cuts[0][0], cuts[1][0]) != (0, 1):
        for axis, index in cuts:
            tensor = tensor.index_select(axis, index)
        return tensor
    (_, rows), (_, columns) = cuts
    kernels = (rows[:, None] * tensor.shape[1] + columns).reshape(-1)
    new = tensor.new_empty((rows.numel(), columns.numel(), *tensor.shape[2:]))
    torch.index_select(tensor.flatten(0, 1), 0, kernels, out=new.flatten(0, 1))
    return new


def as_laid_out(new: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Keep the memory format (channels_last) of the tensor it replaces."""
    if like.is_contiguous():
        return new.contiguous()
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(like.ndim)
    return new.contiguous(memory_format=layout) if layout and like.is_contiguous(memory_format=layout) else new
