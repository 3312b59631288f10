"""What every plan must satisfy, wherever it comes from: its positions exist, and its groups divide their channels."""

import math
from collections import Counter

from slimnet.errors import PlanError
from slimnet.surgery.plan_data import GroupCut, Merge, PlanData


def check_indices(plan: PlanData) -> None:
    """Refuse indices that do not exist in the dense network, twice the same, or none at all.

    Raises:
        PlanError: naming the tensor.
    """
    checked: set[tuple[int, int]] = set()
    for cut in plan.cuts:
        shape = known_shape(plan, cut.tensor)
        if not 0 <= cut.axis < len(shape):
            raise PlanError(f"the plan cuts axis {cut.axis} of {cut.tensor}, which has {len(shape)}")
        # Axes that are cut alike share one tuple.
        if (id(cut.keep), shape[cut.axis]) not in checked:
            check_positions(cut.keep, shape[cut.axis], cut.tensor, distinct=True)
            checked.add((id(cut.keep), shape[cut.axis]))
    for group in plan.groups:
        check_group(group, known_shape(plan, group.weight))
    for zeroed in plan.zeroed:
        check_positions(zeroed.channels, math.prod(known_shape(plan, zeroed.tensor)), zeroed.tensor, distinct=True)
    for merge in plan.merges:
        check_merge(plan, merge)
    if any(min(padding.before, padding.after) < 0 for padding in plan.paddings):
        raise PlanError("the plan pads by a negative number of channels")
    check_attributes(plan)
    check_compensations(plan)
    if any(count.channels < 1 for count in plan.features):
        raise PlanError("the plan leaves a normalisation without channels")


def check_attributes(plan: PlanData) -> None:
    """Refuse attributes that are changed twice, or that grow.

    Raises:
        PlanError: naming the first of them.
    """
    changed = Counter(cut.path for cut in plan.attributes)
    for path, times in changed.items():
        if times > 1:
            raise PlanError(f"the plan changes {path} {times} times")
    for cut in plan.attributes:
        if cut.after > cut.before:
            raise PlanError(f"the plan makes {cut.path} larger, from {cut.before} to {cut.after}")


def check_compensations(plan: PlanData) -> None:
    """Refuse LayerNorms that are compensated twice, or by numbers that no constants have.

    Raises:
        PlanError: naming the first of them.
    """
    often = Counter(each.module for each in plan.compensations)
    for each in plan.compensations:
        if often[each.module] > 1:
            raise PlanError(f"the plan compensates {each.module} {often[each.module]} times")
        if each.total < 1 or not math.isfinite(each.mean) or not 0 <= each.spread < math.inf:
            raise PlanError(f"the plan gives {each.module} statistics that it cannot have")


def known_shape(plan: PlanData, name: str) -> tuple[int, ...]:
    """The dense shape of a tensor the plan names."""
    if name not in plan.shapes:
        raise PlanError(f"the plan changes {name}, which its network does not have")
    return tuple(plan.shapes[name])


def check_positions(positions: tuple[int, ...], size: int, where: str, *, distinct: bool) -> None:
    """Refuse positions outside an axis of `size`, repeated ones, or an empty list."""
    if not positions:
        raise PlanError(f"the plan keeps nothing of {where}")
    if min(positions) < 0 or max(positions) >= size:
        raise PlanError(f"the plan names a channel of {where} outside 0..{size - 1}")
    if distinct and len(set(positions)) != len(positions):
        raise PlanError(f"the plan names a channel of {where} twice")


def check_merge(plan: PlanData, merge: Merge) -> None:
    """Refuse merges that do not pair channels up, or name some that the weight does not have."""
    shape = known_shape(plan, merge.weight)
    if merge.axis not in (0, 1) or not len(merge.carriers) == len(merge.sources) == len(merge.ratios):
        raise PlanError(f"the plan merges channels of {merge.weight} that do not pair up")
    groups = next((g.groups_before for g in plan.groups if g.weight == merge.weight), 1)
    width = shape[merge.axis] * (groups if merge.axis == 1 else 1) if merge.axis < len(shape) else 0
    check_positions((*merge.carriers, *merge.sources), width, merge.weight, distinct=False)


def check_group(group: GroupCut, shape: tuple[int, ...]) -> None:
    """Refuse groups that do not divide the channels they are given."""
    before, after = group.groups_before, group.groups_after
    if len(shape) < 2 or before < 1 or after < 1 or shape[0] % before:
        raise PlanError(f"the plan gives {group.weight} {before} and {after} groups, which it cannot have")
    check_positions(group.inputs, shape[1] * before, group.weight, distinct=True)
    check_positions(group.outputs, shape[0], group.weight, distinct=True)
    if len(group.inputs) % after or len(group.outputs) % after:
        raise PlanError(f"the plan gives {group.weight} {after} groups, which do not divide its channels")
