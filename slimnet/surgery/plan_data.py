"""What a surgery plan is made of: cuts, folds, kept channels and the reasons for them."""

from collections.abc import Mapping
from dataclasses import dataclass

from slimnet.graph.reasons import Cause, Kind, Reason
from slimnet.storage.field_types import Count

FAST = "fast under "
"""How the rounding of a plan begins whose widths are fast under a runtime, which is named after it."""

EVERY_WIDTH = "whole"
"""The rounding of a plan in which every layer keeps its width."""

FORMAT = 1
"""The version of the JSON that `SurgeryPlan.to_json` writes."""


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
    """The zero channels a `PadShortcut` adds after the surgery, in plans of earlier versions."""

    module: str
    before: Count
    after: Count


@dataclass(frozen=True)
class FeatureCount:
    """The channels after the surgery of a normalisation that has no tensor of its own, in plans of earlier versions."""

    module: str
    channels: Count


@dataclass(frozen=True)
class AttributeCut:
    """An integer attribute of a module that is a width: its value before and after the surgery.

    `attribute` is a dotted path from the module: `width`, `sizes.0` of a list or tuple, `config.width` of a dataclass.
    """

    module: str
    attribute: str
    before: Count
    after: Count

    @property
    def path(self) -> str:
        """The whole path from the network."""
        return f"{self.module}.{self.attribute}" if self.module else self.attribute


@dataclass(frozen=True)
class NormCompensation:
    """What the removed constants of a LayerNorm add to its statistics.

    `total` are its channels before the surgery, `mean` is that of the removed constants, `spread` the sum of their
    squared deviations from it.
    """

    module: str
    total: Count
    mean: float
    spread: float


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
        return "" if self.known_kind is None else self.known_kind.help

    @property
    def cause(self) -> Cause:
        """What the reason has in common with others; `Cause.OTHER` where its kind is not known."""
        return Cause.OTHER if self.known_kind is None else self.known_kind.cause

    @property
    def known_kind(self) -> Kind | None:
        """The kind of the reason; None where the plan has none, or one of another version."""
        return Kind.__members__.get(self.kind.upper())


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
class DataStop:
    """Where the forward begins to depend on data, as a detector does that selects boxes.

    What it reads from there on stays as wide as it was. `watched` are the paths of the modules in front of it whose
    outputs the certificate compares, `behind` those of modules that run behind it, whose outputs it compares where they
    are given the same as in the dense network.
    """

    place: str
    watched: tuple[str, ...]
    behind: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlanData:
    """The fields of a surgery plan, without its methods: see `slimnet.surgery.plan.SurgeryPlan`.

    `live` is how many of the removed channels were alive in the dense network, chosen by a method.
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
    attributes: tuple[AttributeCut, ...] = ()
    stop: DataStop | None = None
    compensations: tuple[NormCompensation, ...] = ()
    live: Count = 0
    version: int = FORMAT

    @property
    def removed_channels(self) -> int:
        """Output channels removed from convolutions and linear layers."""
        return sum(layer.channels_before - layer.channels_after for layer in self.layers)

    @property
    def kept_for_speed(self) -> int:
        """Removable output channels that are kept because their removal saves no time."""
        return sum(len(kept.channels) for kept in self.kept if kept.kind == Kind.NO_FASTER.name.lower())

    @property
    def dead_channels(self) -> int:
        """Output channels of convolutions and linear layers that were found dead."""
        return sum(layer.dead for layer in self.layers)
