"""The surgery plan as data: cuts, folds, kept channels and the reasons for them."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from slimnet.errors import PlanError
from slimnet.graph.reasons import Kind, Reason
from slimnet.modules.tensors import Tensors
from slimnet.storage.field_types import Count
from slimnet.storage.records import build, parse_json
from slimnet.surgery.plan_text import describe

FORMAT = 1
"""The version of the JSON that `to_json` writes."""


@dataclass(frozen=True)
class AxisCut:
    """Keep these positions of one axis of a parameter or buffer, in this order."""

    tensor: str
    axis: int
    keep: tuple[int, ...]


@dataclass(frozen=True)
class GroupCut:
    """A grouped convolution's new groups: `inputs` are the dense input channels of each new group in turn.

    `outputs` are the kept dense output channels. A tap between channels of different old groups is zero. Of a
    transposed convolution, whose weight has its inputs first, it is the other way round.
    """

    weight: str
    groups_before: Count
    groups_after: Count
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Fold:
    """Constants of removed channels, added to a bias: one increment for each remaining output channel."""

    reader: str
    bias: str
    channels: Count
    increments: tuple[float, ...]


@dataclass(frozen=True)
class Merge:
    """Constants of removed channels, carried by a kept one: `weight[:, carrier] += ratio · weight[:, source]`.

    A channel that is its own source is a mean over channels of which some are removed.
    """

    weight: str
    axis: int
    carriers: tuple[int, ...]
    sources: tuple[int, ...]
    ratios: tuple[float, ...]


@dataclass(frozen=True)
class Zeroed:
    """γ below the threshold that has to be zero for the surgery to be exact, for dense channels.

    They are those of removed constants, of what carries them, and of what they are computed from. Every other channel
    that stays keeps its γ.
    """

    tensor: str
    channels: tuple[int, ...]


@dataclass(frozen=True)
class PaddingCut:
    """The zero channels a `PadShortcut` adds after the surgery."""

    module: str
    before: Count
    after: Count


@dataclass(frozen=True)
class FeatureCount:
    """The channels after the surgery of a normalisation that has no tensor of its own."""

    module: str
    channels: Count


@dataclass(frozen=True)
class Kept:
    """Dead channels of a layer that stay, and why: `reason` in words, and the same as data.

    `kind` is one of `slimnet.graph.reasons`; `op`, the path `module` and the source `line` say where. Each
    is empty where there is none, and in plans that were made without.
    """

    layer: str
    reason: str
    channels: tuple[int, ...]
    kind: str = ""
    op: str = ""
    module: str = ""
    line: str = ""

    @classmethod
    def because(cls, layer: str, reason: Reason, channels: tuple[int, ...]) -> "Kept":
        """Channels that stay for a reason."""
        return cls(layer, str(reason), channels, reason.kind.name.lower(), *reason.place)

    @property
    def help(self) -> str:
        """The remedy in a few words; empty where there is none."""
        kind = Kind.__members__.get(self.kind.upper())
        return "" if kind is None else kind.help


@dataclass(frozen=True)
class LayerPlan:
    """One convolution or linear layer before and after; `channels` are its outputs, `dead` those that are constant.

    MACs are those of inference: a layer that only training runs has none.
    """

    name: str
    kind: str
    channels_before: Count
    channels_after: Count
    dead: Count
    macs_before: Count
    macs_after: Count


@dataclass(frozen=True)
class WidthTrial:
    """One way to round the widths that was measured, in milliseconds for a whole batch, over the quickest rounds.

    `low` and `high` bound how many times faster than the dense network it is, with 95 % confidence.
    """

    rounding: str
    runtime: str
    batch: Count
    threads: Count
    macs: Count
    median_ms: float
    low: float
    high: float


@dataclass(frozen=True)
class SurgeryPlan:
    """Everything needed to make a dense network slim, without its weights.

    `shapes` are the dense network's tensors; a plan fits a network with exactly these. MACs are those of one example.
    `rounding` says in words what widths were rounded up to, `trials` what else was measured before it was chosen.
    """

    network: str
    criterion: str
    threshold: float
    shapes: Mapping[str, tuple[int, ...]]
    cuts: tuple[AxisCut, ...]
    groups: tuple[GroupCut, ...]
    folds: tuple[Fold, ...]
    merges: tuple[Merge, ...]
    zeroed: tuple[Zeroed, ...]
    paddings: tuple[PaddingCut, ...]
    kept: tuple[Kept, ...]
    layers: tuple[LayerPlan, ...]
    params_before: Count
    params_after: Count
    macs_before: Count
    macs_after: Count
    rounding: str = "none"
    trials: tuple[WidthTrial, ...] = ()
    features: tuple[FeatureCount, ...] = ()
    version: int = FORMAT

    @property
    def removed_channels(self) -> int:
        """Output channels removed from convolutions and linear layers."""
        return sum(layer.channels_before - layer.channels_after for layer in self.layers)

    @property
    def dead_channels(self) -> int:
        """Output channels of convolutions and linear layers that were found dead."""
        return sum(layer.dead for layer in self.layers)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        found = hashlib.sha256()
        for piece in self.pieces():
            found.update(piece.encode())
        return found.hexdigest()

    def to_json(self) -> str:
        """Canonical JSON: keys sorted, floats exact."""
        return "".join(self.pieces())

    def pieces(self) -> Iterator[str]:
        """The canonical JSON, a cut or a fold at a time; all at once would take ten times the memory of the text."""
        opening = "{"
        for name, value in sorted(fields_of(self).items()):
            yield f'{opening}"{name}":'
            if isinstance(value, tuple) and value:
                yield from ("[,"[number > 0] + encode(item) for number, item in enumerate(value))
                yield "]"
            else:
                yield encode(value)
            opening = ","
        yield "}"

    @classmethod
    def from_json(cls, text: str) -> "SurgeryPlan":
        """Read a plan back; the text may come from anywhere.

        Raises:
            PlanError: it is not JSON, or not a plan of this version, or a field has another type.
        """
        return cls.from_data(parse_json(text, "the plan", PlanError))

    @classmethod
    def from_data(cls, data: Any) -> "SurgeryPlan":
        """What `to_json` writes, parsed.

        Raises:
            PlanError: as `from_json`.
        """
        if not isinstance(data, dict) or data.get("version") != FORMAT:
            raise PlanError(f"the plan is not a slimnet plan of version {FORMAT}; make it again with this slimnet")
        return build(cls, data, "the plan", PlanError)

    def check_fits(self, network: str, tensors: Tensors) -> None:
        """Refuse a network whose parameters and buffers are not those the plan was made for.

        Raises:
            PlanError: naming the first tensor that differs.
        """
        present = tensors.named
        for name, shape in self.shapes.items():
            if name not in present or present[name].shape != tuple(shape):
                found = f"has {tuple(present[name].shape)}" if name in present else "has no such tensor"
                raise PlanError(
                    f"the plan was made for another network: it expects {name} of shape {tuple(shape)}, "
                    f"{network} {found}"
                )
        extra = next((name for name in tensors.state if name not in self.shapes), None)
        if extra is not None:
            raise PlanError(f"the plan was made for another network: it does not know {extra}")
        check_indices(self)

    def then(self, other: "SurgeryPlan") -> "SurgeryPlan":
        """This plan and then `other`, made for the network that this one leaves, as one plan for the dense network.

        Applied to the dense network, it gives what the two give one after the other. What is kept, and why, is what
        `other` says, in dense channels.

        Raises:
            PlanError: they do not compose, naming the first tensor that differs.
        """
        from slimnet.surgery.composition import compose

        return compose(self, other)

    def __str__(self) -> str:
        return describe(self)


def fields_of(part: Any) -> dict[str, Any]:
    """The fields of a plan, or of a part of it, by name."""
    return {each.name: getattr(part, each.name) for each in dataclasses.fields(part)}


encode = json.JSONEncoder(default=fields_of, sort_keys=True, separators=(",", ":"), allow_nan=False).encode
"""The JSON of one value of a plan."""


def check_indices(plan: SurgeryPlan) -> None:
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
    if any(count.channels < 1 for count in plan.features):
        raise PlanError("the plan leaves a normalisation without channels")


def known_shape(plan: SurgeryPlan, name: str) -> tuple[int, ...]:
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


def check_merge(plan: SurgeryPlan, merge: Merge) -> None:
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
