"""compose: two plans, the second made for the network that the first one leaves, as one plan for the dense network."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeVar

import numpy as np

from slimnet.errors import PlanError
from slimnet.surgery.plan_checks import check_indices
from slimnet.surgery.plan_data import (
    AttributeCut,
    AxisCut,
    DataStop,
    Fold,
    GroupCut,
    Kept,
    LayerPlan,
    Merge,
    PlanData,
    Zeroed,
)

Keep = tuple[int, ...]
Shape = tuple[int, ...]
Plan = TypeVar("Plan", bound=PlanData)


def compose(first: PlanData, second: Plan) -> Plan:
    """The plan that does to the dense network what `first` and then `second` do.

    Raises:
        PlanError: `second` was not made for what `first` leaves, or no single plan does the same.
    """
    check_indices(first)
    check_composes(first, second)
    check_indices(second)
    composer = Composer(first, second)
    return dataclasses.replace(
        second,
        criterion=joined(first.criterion, second.criterion),
        threshold=max(first.threshold, second.threshold),
        shapes=composer.shapes,
        cuts=composer.cuts(),
        groups=tuple(composer.groups.values()),
        folds=composer.folds(),
        merges=composer.merges(),
        zeroed=composer.zeroed(),
        # Both are numbers of channels after the surgery, so that the last ones count.
        paddings=tuple({each.module: each for each in (*first.paddings, *second.paddings)}.values()),
        features=tuple({each.module: each for each in (*first.features, *second.features)}.values()),
        attributes=composer.attributes(),
        # A LayerNorm that the first plan compensates is no LayerNorm to the second one, which keeps its channels.
        compensations=first.compensations + second.compensations,
        stop=common_stop(first, second),
        live=first.live + second.live,
        kept=composer.kept(),
        layers=composer.layers(),
        params_before=first.params_before,
        macs_before=first.macs_before,
    )


def common_stop(first: PlanData, second: PlanData) -> DataStop | None:
    """Where the forward begins to depend on data, with the modules whose outputs neither plan cuts."""
    if first.stop is None or second.stop is None:
        return second.stop
    watched = tuple(path for path in second.stop.watched if path in first.stop.watched)
    behind = tuple(path for path in second.stop.behind if path in first.stop.behind)
    return dataclasses.replace(second.stop, watched=watched, behind=behind)


def joined(first: str, second: str) -> str:
    """Two criteria in words, one where they are the same."""
    return first if second in first.split(", then ") else f"{first}, then {second}"


def check_composes(first: PlanData, second: PlanData) -> None:
    """Refuse a second plan that is not for the network that the first leaves.

    Raises:
        PlanError: naming the first tensor that differs.
    """
    if first.network != second.network:
        raise PlanError(f"the plans do not compose: the first is for {first.network}, the second for {second.network}")
    left = shapes_left(first)
    for name, shape in second.shapes.items():
        if name not in left and not is_plain(name, second, left):
            raise PlanError(f"the plans do not compose: the first does not know {name}, which the second expects")
        if name in left and tuple(shape) != left[name] and not is_shared(name, tuple(shape), first, left):
            raise PlanError(
                f"the plans do not compose: the first leaves {name} with shape {left[name]}, the second expects "
                f"{tuple(shape)}; make the second for the network that the first leaves"
            )
    for name in left:
        if name not in second.shapes and not is_plain(name, first, second.shapes):
            raise PlanError(f"the plans do not compose: the second does not know {name}, which the first leaves")


def is_plain(name: str, plan: PlanData, others: Iterable[str]) -> bool:
    """Whether a name may be that of a plain tensor attribute, which a plan knows only where it cuts it."""
    path = name.rpartition(".")[0]
    return any(cut.tensor == name for cut in plan.cuts) and any(other.rpartition(".")[0] == path for other in others)


def is_shared(name: str, shape: Shape, first: PlanData, left: Mapping[str, Shape]) -> bool:
    """Whether a tensor may be one that the first plan cuts under another name, which is all that it names."""
    cut = {each.tensor for each in first.cuts} | {each.weight for each in first.groups}
    dense = tuple(first.shapes.get(name, ()))
    return name not in cut and any(left[other] == shape and tuple(first.shapes[other]) == dense for other in cut)


def shapes_left(plan: PlanData) -> dict[str, Shape]:
    """The shape of every tensor after a plan, biases that it adds included."""
    left = {name: tuple(shape) for name, shape in plan.shapes.items()}
    for group in plan.groups:
        size = len(group.inputs) // group.groups_after
        left[group.weight] = (len(group.outputs), size, *left[group.weight][2:])
    for cut in plan.cuts:
        shape = list(left[cut.tensor])
        shape[cut.axis] = len(cut.keep)
        left[cut.tensor] = tuple(shape)
    for fold in plan.folds:
        left.setdefault(fold.bias, (len(fold.increments),))
    return left


class Composer:
    """Translates the parts of a second plan to the channels of the dense network, and joins them with the first's."""

    def __init__(self, first: PlanData, second: PlanData) -> None:
        self.first, self.second = first, second
        self.before = {(cut.tensor, cut.axis): cut.keep for cut in first.cuts}
        self.after = {(cut.tensor, cut.axis): cut.keep for cut in second.cuts}
        self.added = {fold.bias for fold in first.folds} - first.shapes.keys()
        others = {name: shape for name, shape in second.shapes.items() if name not in self.added}
        self.shapes = {**others, **first.shapes}
        self.first_groups = {group.weight: group for group in first.groups} | self.lone_depthwise()
        self.groups = self.composed_groups()

    def lone_depthwise(self) -> dict[str, GroupCut]:
        """Depthwise weights of which the first plan leaves one group, as cuts of groups.

        The second plan sees an ordinary convolution in them, and may keep a part of that group's outputs.
        """
        ordinary = {layer.name for layer in self.second.layers if layer.kind != "depthwise"}
        found = {}
        for layer in self.first.layers:
            weight = f"{layer.name}.weight".removeprefix(".")
            if layer.kind == "depthwise" and layer.name in ordinary and (weight, 0) in self.before:
                keep = self.before[weight, 0]
                groups = self.shapes[weight][0] // len(keep)
                found[weight] = GroupCut(weight, groups, 1, (keep[0] // len(keep),), keep)
        return found

    def composed_groups(self) -> dict[str, GroupCut]:
        """The groups of every grouped convolution that changes."""
        found = dict(self.first_groups)
        for weight, group in self.first_groups.items():
            rows, columns = self.after.get((weight, 0)), self.after.get((weight, 1))
            if group.groups_after == 1:
                found[weight] = dataclasses.replace(
                    group,
                    inputs=group.inputs if columns is None else through(group.inputs, columns),
                    outputs=group.outputs if rows is None else through(group.outputs, rows),
                )
            elif rows is not None:
                found[weight] = with_outputs(group, rows)
        for group in self.second.groups:
            inner = found.get(group.weight)
            found[group.weight] = group if inner is None else nested(inner, group, self.shapes[group.weight])
        return found

    def cuts(self) -> tuple[AxisCut, ...]:
        """The positions of every axis that are left in the end."""
        found = []
        shared: dict[Keep, Keep] = {}
        for tensor, axis in dict.fromkeys(chain(self.before, self.after)):
            if tensor in self.groups or tensor in self.added:
                continue
            inner, outer = self.before.get((tensor, axis)), self.after.get((tensor, axis))
            keep = (inner or ()) if outer is None else through(inner, outer)
            if keep != tuple(range(self.shapes[tensor][axis])):
                found.append(AxisCut(tensor, axis, shared.setdefault(keep, keep)))
        return tuple(found)

    def folds(self) -> tuple[Fold, ...]:
        """Constants of both plans, added to the biases of what is left in the end."""
        found: dict[str, Fold] = {}
        for fold in self.first.folds:
            keep = self.after.get((fold.bias, 0), range(len(fold.increments)))
            found[fold.bias] = dataclasses.replace(fold, increments=tuple(fold.increments[place] for place in keep))
        for fold in self.second.folds:
            inner = found.get(fold.bias)
            if inner is not None:
                sums = np.array(inner.increments) + np.array(fold.increments)
                fold = Fold(fold.reader, fold.bias, inner.channels + fold.channels, tuple(sums.tolist()))
            found[fold.bias] = fold
        return tuple(found.values())

    def merges(self) -> tuple[Merge, ...]:
        """The merges of the first plan, then those of the second in dense channels."""
        found = {merge.weight: merge for merge in self.first.merges}
        for merge in self.second.merges:
            keep = self.inputs_left(merge)
            own = dataclasses.replace(
                merge, carriers=through(keep, merge.carriers), sources=through(keep, merge.sources)
            )
            self.check_within_groups(own)
            found[own.weight] = own if own.weight not in found else one_after_the_other(found[own.weight], own)
        return tuple(found.values())

    def inputs_left(self, merge: Merge) -> Keep | None:
        """The dense positions of the input channels that the first plan leaves of a weight."""
        group = self.first_groups.get(merge.weight)
        if group is None:
            return self.before.get((merge.weight, merge.axis))
        return group.inputs if merge.axis == 1 else group.outputs

    def check_within_groups(self, merge: Merge) -> None:
        """Refuse merges between channels that are in one group only after the first plan.

        Raises:
            PlanError: there is one.
        """
        group = self.first_groups.get(merge.weight)
        if group is None:
            return
        rows, columns = self.shapes[merge.weight][:2]
        size = columns if merge.axis == 1 else rows // group.groups_before
        if any(one // size != other // size for one, other in zip(merge.carriers, merge.sources, strict=True)):
            raise PlanError(
                f"the plans do not compose: the second merges channels of {merge.weight} that are in one group only "
                "after the first; apply them one after the other"
            )

    def zeroed(self) -> tuple[Zeroed, ...]:
        """The γ that either plan relies on, in dense channels."""
        found = {each.tensor: set(each.channels) for each in self.first.zeroed}
        for each in self.second.zeroed:
            flat = np.arange(np.prod(self.shapes[each.tensor], dtype=np.int64)).reshape(self.shapes[each.tensor])
            for (tensor, axis), keep in self.before.items():
                if tensor == each.tensor:
                    flat = flat.take(keep, axis)
            found.setdefault(each.tensor, set()).update(flat.reshape(-1)[list(each.channels)].tolist())
        return tuple(Zeroed(tensor, tuple(sorted(channels))) for tensor, channels in sorted(found.items()))

    def attributes(self) -> tuple[AttributeCut, ...]:
        """The attributes from their dense values to the last ones.

        Raises:
            PlanError: the second plan expects another value than the first leaves.
        """
        found = {(cut.module, cut.attribute): cut for cut in self.first.attributes}
        for cut in self.second.attributes:
            inner = found.get((cut.module, cut.attribute), cut)
            if inner is not cut and inner.after != cut.before:
                raise PlanError(
                    f"the plans do not compose: the first leaves {cut.path} at {inner.after}, the second expects "
                    f"{cut.before}; make the second for the network that the first leaves"
                )
            found[cut.module, cut.attribute] = dataclasses.replace(cut, before=inner.before)
        return tuple(found.values())

    def kept(self) -> tuple[Kept, ...]:
        """What the second plan keeps, in dense channels; what the first kept is among it, or was removed since."""
        before = {layer.name: layer for layer in self.first.layers}
        found = []
        for each in self.second.kept:
            keep = self.outputs_left(before[each.layer]) if each.layer in before else None
            found.append(dataclasses.replace(each, channels=through(keep, each.channels)))
        return tuple(found)

    def outputs_left(self, layer: LayerPlan) -> Keep | None:
        """The dense positions of the output channels that the first plan leaves of a layer; None where none went."""
        path = f"{layer.name}." if layer.name else ""
        places = [
            (f"{path}bias", 0),
            *((f"{path}{leaf}", axis) for leaf in ("weight", "weight_orig") for axis in (0, 1)),
        ]
        keeps = [(self.before[place], self.shapes[place[0]][place[1]]) for place in places if place in self.before]
        for leaf in ("weight", "weight_orig"):
            if (group := self.first_groups.get(f"{path}{leaf}")) is not None:
                keeps += [(group.outputs, layer.channels_before), (group.inputs, layer.channels_before)]
        fitting = (keep for keep, size in keeps if (len(keep), size) == (layer.channels_after, layer.channels_before))
        return next(fitting, None)

    def layers(self) -> tuple[LayerPlan, ...]:
        """Every layer from its dense width to the last one; what the first plan removed was dead."""
        after = {layer.name: layer for layer in self.second.layers}
        return tuple(
            dataclasses.replace(
                layer,
                channels_after=after[layer.name].channels_after,
                dead=layer.channels_before - layer.channels_after + after[layer.name].dead,
                macs_after=after[layer.name].macs_after,
            )
            for layer in self.first.layers
            if layer.name in after
        )


def through(keep: Keep | None, positions: Sequence[int]) -> Keep:
    """Positions among what the first plan leaves, as positions of the dense axis."""
    return tuple(positions) if keep is None else tuple([keep[place] for place in positions])


def with_outputs(group: GroupCut, keep: Keep) -> GroupCut:
    """A cut of groups, each of which is left with one input, of which only some outputs stay.

    Raises:
        PlanError: a group loses some of its outputs and others do not.
    """
    size = len(group.outputs) // group.groups_after
    left = [place // size for place in keep]
    groups = list(dict.fromkeys(left))
    share = len(keep) // len(groups)
    if len(group.inputs) != group.groups_after or left != [number for number in groups for _ in range(share)]:
        raise PlanError(f"the plans do not compose: the second leaves uneven groups of {group.weight}")
    inputs = through(group.inputs, groups)
    return dataclasses.replace(group, groups_after=len(groups), inputs=inputs, outputs=through(group.outputs, keep))


def nested(inner: GroupCut, outer: GroupCut, shape: Shape) -> GroupCut:
    """One cut of groups after another of the weight of a dense shape.

    Raises:
        PlanError: taps that one of them loses would be there again.
    """
    inputs, outputs = through(inner.inputs, outer.inputs), through(inner.outputs, outer.outputs)
    dense = np.equal.outer(np.array(outputs) // (shape[0] // inner.groups_before), np.array(inputs) // shape[1])
    halfway = np.equal.outer(
        np.array(outer.outputs) // (len(inner.outputs) // inner.groups_after),
        np.array(outer.inputs) // (len(inner.inputs) // inner.groups_after),
    )
    if (dense & ~halfway).any():
        raise PlanError(f"the plans do not compose: the first parts the groups of {inner.weight}")
    return GroupCut(inner.weight, inner.groups_before, outer.groups_after, inputs, outputs)


def one_after_the_other(first: Merge, second: Merge) -> Merge:
    """Two merges into one weight as one.

    Raises:
        PlanError: they are along different axes.
    """
    if first.axis != second.axis:
        raise PlanError(f"the plans do not compose: they merge channels along different axes of {first.weight}")
    return dataclasses.replace(
        first,
        carriers=first.carriers + second.carriers,
        sources=first.sources + second.sources,
        ratios=first.ratios + second.ratios,
    )
