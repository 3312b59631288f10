"""write_plan: turn a settled removal into the surgery plan, which people read and `apply_plan` executes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from slimnet.graph.channel_graph import ChannelReduction, Depthwise, Reader
from slimnet.graph.reasons import Reason
from slimnet.modules.tensors import Tensors
from slimnet.planning.carriers import carrier, carrier_groups
from slimnet.planning.channel_order import MixedChannelsError, Orders
from slimnet.planning.channel_reductions import scaled_readers
from slimnet.planning.dead_channels import DeadChannels
from slimnet.planning.liveness import needs
from slimnet.planning.relied_constants import relied_scales
from slimnet.planning.removal import Removal
from slimnet.planning.slim_cost import SlimCost, count_elements
from slimnet.surgery.plan import SurgeryPlan
from slimnet.surgery.plan_data import (
    AttributeCut,
    AxisCut,
    DataStop,
    Fold,
    GroupCut,
    Kept,
    LayerPlan,
    Merge,
    NormCompensation,
    Zeroed,
)
from slimnet.torch_state.precision import double_sum, in_double

AT_ONCE = 1 << 16
"""The number of elements of a weight that are converted at a time, so that no second copy of it is in memory."""


def write_plan(
    network: str,
    tensors: Tensors,
    narrow: SlimCost,
    removal: Removal,
    orders: Orders,
    dead: DeadChannels,
    rounding: str,
    attributes: tuple[AttributeCut, ...] = (),
) -> SurgeryPlan:
    """Collect cuts, groups, folds, merges and reasons, and count parameters and MACs.

    Raises:
        MixedChannelsError: a new group of a grouped convolution lacks channels that its members read.
    """
    graph = removal.graph
    groups = group_cuts(narrow, removal, orders)
    folds, merges = fold_constants(removal, orders)
    state = tensors.state
    added = sum(len(fold.increments) for fold in folds if fold.bias not in state)
    cuts = axis_cuts(removal, orders, {group.weight for group in groups})
    # Plain tensor attributes are included only if they are cut: hooks recompute others in every forward.
    cut = {each.tensor: tensors.plain[each.tensor] for each in cuts if each.tensor in tensors.plain}
    found_dead = dead_outputs(removal, dead.outputs)
    return SurgeryPlan(
        network=network,
        criterion=dead.criterion,
        threshold=dead.threshold,
        shapes={name: tuple(tensor.shape) for name, tensor in {**state, **cut}.items()},
        cuts=tuple(cuts),
        groups=tuple(groups),
        folds=tuple(folds),
        merges=tuple(merges),
        zeroed=tuple(Zeroed(*relied) for relied in relied_scales(removal, merges, dead.scales).items()),
        paddings=(),
        kept=tuple(kept_dead(removal, found_dead)),
        layers=tuple(layer_plans(narrow, removal, found_dead)),
        params_before=count_elements(tensors.parameters),
        params_after=narrow.params + added,
        macs_before=graph.macs,
        macs_after=narrow.macs,
        rounding=rounding,
        attributes=attributes,
        compensations=tuple(norm_compensations(removal)),
        stop=None if graph.stop is None else DataStop(str(graph.stop.place), graph.stop.watched, graph.stop.behind),
    )


def axis_cuts(removal: Removal, orders: Orders, grouped_weights: set[str]) -> list[AxisCut]:
    """The kept positions of every parameter axis that loses some, or whose order changes."""
    cuts = []
    # Axes that are cut alike share one tuple, which is then checked, and converted to an index, only once.
    shared: dict[bytes, tuple[int, ...]] = {}
    for key, labels in removal.graph.vectors.items():
        if key[0] in grouped_weights:
            continue
        keep = orders.axes.get(key)
        if keep is None:
            keep = removal.kept(labels)
            unchanged = keep.size == labels.size
        else:
            unchanged = keep.size == labels.size and bool((keep[1:] > keep[:-1]).all())
        if not unchanged:
            code = keep.tobytes()
            if code not in shared:
                shared[code] = tuple(keep.tolist())
            cuts.append(AxisCut(*key, shared[code]))
    return cuts


def group_cuts(narrow: SlimCost, removal: Removal, orders: Orders) -> list[GroupCut]:
    """The new groups of every grouped convolution that changes.

    Raises:
        MixedChannelsError: the inputs of a kept output are not all in its new group.
    """
    cuts = {}
    for index, reader in enumerate(removal.graph.readers):
        if reader.groups == 1 or reader.weight is None:
            continue
        inputs, outputs = orders.inputs[index], orders.outputs[index]
        after = narrow.groups[index]
        same = after == reader.groups and inputs.size == reader.inputs.size and outputs.size == reader.outputs.size
        if same and np.array_equal(inputs, np.arange(inputs.size)) and np.array_equal(outputs, np.arange(outputs.size)):
            continue
        check_blocks(removal, reader, inputs.reshape(after, -1), outputs.reshape(after, -1))
        rows, columns = (outputs, inputs) if reader.in_axis == 1 else (inputs, outputs)
        cuts[reader.weight] = GroupCut(
            reader.weight, reader.groups, after, tuple(columns.tolist()), tuple(rows.tolist())
        )
    return list(cuts.values())


def check_blocks(removal: Removal, reader: Reader, inputs: np.ndarray, outputs: np.ndarray) -> None:
    """Check that the new group of every kept output contains all kept inputs of its old group.

    Raises:
        MixedChannelsError: one does not.
    """
    in_block = reader.inputs.size // reader.groups
    out_block = reader.outputs.size // reader.groups
    kept = np.bincount(inputs.reshape(-1) // in_block, minlength=reader.groups)
    for ins, outs in zip(inputs, outputs, strict=True):
        here = np.bincount(ins // in_block, minlength=reader.groups)
        blocks = outs // out_block
        if (here[blocks] != kept[blocks]).any():
            raise MixedChannelsError(removal.sets[np.concatenate([reader.inputs, reader.outputs])], reader.module)


def fold_constants(removal: Removal, orders: Orders) -> tuple[list[Fold], list[Merge]]:
    """The folds and merges of the nonzero constants of removed channels: into biases, or carriers under padding."""
    folds: dict[str, Fold] = {}
    merges: dict[str, Merge] = {}
    for index, (reader, reads) in enumerate(zip(removal.graph.readers, removal.needs.reads, strict=True)):
        lost = removal.folded[reader.inputs] & reads
        if not np.count_nonzero(lost):
            continue
        values = removal.constants[reader.inputs]
        if reader.uniform and reader.bias_name is not None:
            increments = bias_increments(reader, np.where(lost, values, 0.0))[orders.outputs[index]]
            folds[reader.bias_name] = Fold(reader.module, reader.bias_name, int(lost.sum()), tuple(increments.tolist()))
        elif reader.weight is not None:
            merges[reader.weight] = merge_into_carriers(removal, reader, reads, lost)
    for total in removal.graph.sums:
        for scaling in rescaling_merges(removal, total):
            merges[scaling.weight] = concatenate_merges(scaling, merges.get(scaling.weight))
    return list(folds.values()), list(merges.values())


def rescaling_merges(removal: Removal, total: ChannelReduction) -> Iterator[Merge]:
    """Merges that rescale the weights reading a mean over fewer channels; carrier and source are the mean itself."""
    removed = removal.is_removed(total.rows[0])
    if total.kind == "mean" and removed.any():
        ratio = -np.count_nonzero(removed) / removed.size
        for reader, place in scaled_readers(removal.graph, total) or ():
            yield Merge(reader.weight or "", reader.in_axis, (place,), (place,), (ratio,))


def norm_compensations(removal: Removal) -> Iterator[NormCompensation]:
    """What every LayerNorm that loses constants must add to its statistics."""
    for total in removal.graph.sums:
        if total.kind == "moments":
            labels = total.rows[0]
            lost = removal.constants[labels[removal.is_removed(labels)]]
            if lost.size:
                mean = float(lost.mean())
                yield NormCompensation(total.where.place.module, labels.size, mean, float(((lost - mean) ** 2).sum()))


def concatenate_merges(first: Merge, second: Merge | None) -> Merge:
    """Two merges into one weight as one."""
    if second is None:
        return first
    return Merge(
        first.weight,
        first.axis,
        first.carriers + second.carriers,
        first.sources + second.sources,
        first.ratios + second.ratios,
    )


def bias_increments(reader: Reader, values: np.ndarray) -> np.ndarray:
    """Σ over inputs and taps of weight · constant, for each dense output channel `(O,)`, float64."""
    weight = reader.grouped_numbers()
    if isinstance(weight, np.ndarray) and weight.shape[0] == weight.shape[3] == 1:
        return dense_increments(weight[0, :, :, 0], values)
    per_group = values.size // reader.groups
    rows = reader.outputs.size // reader.groups
    taps = reader.taps()
    increments = np.zeros(reader.outputs.size)
    for group in range(reader.groups):
        constants = values[group * per_group : (group + 1) * per_group]
        columns = np.flatnonzero(constants)
        if columns.size:
            index = torch.from_numpy(columns).to(taps.device)
            step = max(1, AT_ONCE // (columns.size * taps.shape[2]))
            for start in range(group * rows, (group + 1) * rows, step):
                block = slice(start, min(start + step, (group + 1) * rows))
                read = taps[block].index_select(1, index)
                increments[block] = sum_taps(read).cpu().numpy() @ constants[columns]
    return increments


def dense_increments(weight: np.ndarray, values: np.ndarray) -> np.ndarray:
    """As `bias_increments`, for a weight `(O, I)` of one group and one tap, in NumPy."""
    columns = np.flatnonzero(values)
    step = max(1, AT_ONCE // max(1, columns.size))
    blocks = (weight[start : start + step].take(columns, 1) for start in range(0, len(weight), step))
    return np.concatenate([block.astype(np.float64) @ values[columns] for block in blocks])


def sum_taps(taps: torch.Tensor) -> torch.Tensor:
    """The sum over taps of `(O, I, taps)`, float64."""
    return in_double(taps.squeeze(2)) if taps.shape[2] == 1 else double_sum(taps, 2)


def merge_into_carriers(removal: Removal, reader: Reader, reads: np.ndarray, lost: np.ndarray) -> Merge:
    """The merge of each lost input channel into its carrier, by the ratio of their constants."""
    assert reader.weight is not None
    values = removal.constants[reader.inputs]
    carriers: list[int] = []
    sources: list[int] = []
    for group in carrier_groups(reader):
        lost_inputs = group[lost[group]]
        if lost_inputs.size:
            local = carrier(removal, reader, group, reads)
            assert local is not None
            carriers += [int(group[local])] * lost_inputs.size
            sources += lost_inputs.tolist()
    ratios = values[sources] / values[carriers]
    return Merge(reader.weight, reader.in_axis, tuple(carriers), tuple(sources), tuple(ratios.tolist()))


def kept_dead(removal: Removal, dead: Mapping[str, np.ndarray]) -> list[Kept]:
    """Dead channels that are kept, by layer and reason."""
    reasons = list(removal.reasons)
    kept: dict[tuple[str, Reason], list[int]] = {}
    for module, layer in last_runs(removal).items():
        stay = np.flatnonzero(dead[module] & removal.stays[layer.outputs])
        codes = removal.why[removal.sets[layer.outputs[stay]]]
        for code in sorted(set(codes.tolist())):
            kept[module, reasons[code]] = stay[codes == code].tolist()
    return [Kept.because(layer, reason, tuple(channels)) for (layer, reason), channels in kept.items()]


def layer_plans(narrow: SlimCost, removal: Removal, dead: Mapping[str, np.ndarray]) -> list[LayerPlan]:
    """Every convolution and linear layer before and after the surgery; each module once."""
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for dense, macs_after in zip(removal.graph.layers, narrow.layer_macs, strict=True):
        before[dense.module] += dense.macs // removal.graph.batch
        after[dense.module] += macs_after // removal.graph.batch
    return [
        LayerPlan(
            name=module,
            kind=layer.kind if isinstance(layer, Reader) else "depthwise",
            channels_before=layer.outputs.size,
            channels_after=removal.count_kept(layer.outputs),
            dead=int(np.count_nonzero(dead[module])),
            macs_before=before[module],
            macs_after=after[module],
        )
        for module, layer in last_runs(removal).items()
    ]


def last_runs(removal: Removal) -> dict[str, Reader | Depthwise]:
    """Every layer by its module, in the order of the first runs; for a module that runs several times the last run."""
    return {layer.module: layer for layer in removal.graph.layers}


def dead_outputs(removal: Removal, seen: Sequence[int]) -> dict[str, np.ndarray]:
    """The dead outputs `(O,)` of every layer; for a layer that runs several times, those that are dead in every run.

    `seen` are the labels of activations that were zero on the data: channels that only these read are dead too.
    """
    dead = removal.problem.dead
    if seen:
        live = needs(removal.graph, removal.constants, np.zeros(0, dtype=np.int64)).live
        dead = dead | (np.isnan(removal.constants) & ~live)
    found: dict[str, np.ndarray] = {}
    for layer in removal.graph.layers:
        own, others = dead[layer.outputs], found.get(layer.module)
        found[layer.module] = own & others if others is not None and others.size == own.size else own
    return found
