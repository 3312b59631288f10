"""ProjectionRecord: the certificate of what was set to zero during a training, cut by cut."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

from slimnet.errors import PlanError, SlimnetError, UsageError
from slimnet.shrinking.invariant_set import Channels
from slimnet.shrinking.projection import Projection
from slimnet.storage.field_types import Amount, Count, NotEmpty, Size
from slimnet.storage.records import build, parse_json
from slimnet.surgery.plan import SurgeryPlan

FORMAT = 1
"""The version of the JSON that `to_json` writes."""


@dataclass(frozen=True)
class ProjectionAt:
    """What was set to zero for good after `iteration` steps.

    `channels` are positions in the dense network by the name of γ, without those that earlier cuts had set to zero.
    `largest_scale` is the largest |γ| among them (any, where the input was always 0) and `highest_shift` the largest β.
    `received` and `outputs` say how far that moved what layers receive and what the network returns, see `Change`;
    None where it was not measured.
    """

    iteration: Count
    channels: Mapping[str, Annotated[tuple[Count, ...], NotEmpty()]]
    largest_scale: Amount
    highest_shift: float
    received: Amount | None
    outputs: Amount | None

    @property
    def count(self) -> int:
        """How many channels it set to zero."""
        return sum(map(len, self.channels.values()))


@dataclass(frozen=True)
class ProjectionRecord:
    """All that a training set to zero, with what was asked for and what was measured.

    Channels had |γ| < `threshold` and β ≤ `largest_shift` at `patience` looks in a row, or the input 0 always. Changes
    were measured on `examples` inputs.

    Raises:
        UsageError: cuts out of order, a channel that is set to zero twice, or a β above the bound.
    """

    threshold: Amount
    largest_shift: Amount
    patience: Size
    examples: Count
    cuts: tuple[ProjectionAt, ...] = ()
    version: int = FORMAT

    def __post_init__(self) -> None:
        if self.version != FORMAT:
            raise UsageError(f"it is of version {self.version}, this slimnet reads {FORMAT}")
        if any(later.iteration <= earlier.iteration for earlier, later in pairwise(self.cuts)):
            raise UsageError("its cuts are not in the order of their iterations")
        seen: set[tuple[str, int]] = set()
        for cut in self.cuts:
            if cut.highest_shift > self.largest_shift:
                found = f"β was {cut.highest_shift:.2g} at iteration {cut.iteration}"
                raise UsageError(f"{found}, above its bound {self.largest_shift:g}")
            own = [(name, channel) for name, channels in cut.channels.items() for channel in channels]
            if seen.intersection(own) or len(set(own)) < len(own):
                raise UsageError(f"at iteration {cut.iteration} it sets a channel to zero a second time")
            seen.update(own)

    @property
    def count(self) -> int:
        """How many channels were set to zero."""
        return sum(cut.count for cut in self.cuts)

    @property
    def received(self) -> float | None:
        """The largest change of what a layer receives over all cuts; None where none was measured."""
        return _largest(cut.received for cut in self.cuts)

    @property
    def outputs(self) -> float | None:
        """The largest change of the network's outputs over all cuts; None where none was measured."""
        return _largest(cut.outputs for cut in self.cuts)

    def after(self, iteration: int, projection: Projection, before: SurgeryPlan | None) -> "ProjectionRecord":
        """The record with one more projection; `before` is the plan from the dense network to that before the cut."""
        channels = self._new(in_dense(projection.channels, before))
        if not channels:
            return self
        change = projection.change
        cut = ProjectionAt(
            iteration,
            channels,
            projection.largest_scale,
            projection.highest_shift,
            None if change is None else change.received,
            None if change is None else change.outputs,
        )
        return dataclasses.replace(self, cuts=(*self.cuts, cut))

    def _new(self, channels: Channels) -> Channels:
        """Those that have not been set to zero before: what cannot be removed is projected at every cut again."""
        known = self.channels()
        new = {name: tuple(sorted(set(found) - known.get(name, set()))) for name, found in channels.items()}
        return {name: found for name, found in new.items() if found}

    def channels(self) -> dict[str, set[int]]:
        """The positions of all channels that were set to zero, in the dense network, by the name of γ."""
        found: dict[str, set[int]] = {}
        for cut in self.cuts:
            for name, channels in cut.channels.items():
                found.setdefault(name, set()).update(channels)
        return found

    def check_against(self, plan: SurgeryPlan) -> None:
        """Refuse a plan of a network that does not have these channels.

        Raises:
            PlanError: naming the γ.
        """
        for name, channels in self.channels().items():
            shape = tuple(plan.shapes.get(name, ()))
            if len(shape) != 1 or max(channels) >= shape[0]:
                has = f"{shape[0]} of them" if len(shape) == 1 else "no such γ"
                lost = f"channel {max(channels)} of {name:.80} was set to zero"
                raise PlanError(f"{lost}, and the plan's network has {has}")

    def to_json(self) -> str:
        """JSON with sorted keys."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str, failure: type[SlimnetError], advice: str = "") -> "ProjectionRecord":
        """Read what `to_json` wrote; the text may come from anywhere.

        Raises:
            failure: it is something else.
        """
        return cls.from_data(parse_json(text, where, failure, advice), where, failure, advice)

    @classmethod
    def from_data(cls, data: Any, where: str, failure: type[SlimnetError], advice: str = "") -> "ProjectionRecord":
        """What `to_json` writes, parsed; `where` begins the message of a failure, and `advice` ends it.

        Raises:
            failure: it is something else.
        """
        return build(cls, data, where, failure, advice=advice)

    def __str__(self) -> str:
        if not self.cuts:
            return "no channel was set to zero during the training"
        first, last = self.cuts[0].iteration, self.cuts[-1].iteration
        when = f"iteration {first:,}" if first == last else f"{len(self.cuts)} cuts, iterations {first:,} to {last:,}"
        shift = f"β up to {max(cut.highest_shift for cut in self.cuts):.2g} where {self.largest_shift:g} was allowed"
        return f"{self.count:,} channels set to zero in training ({when}; {shift}), {self.measured}"

    @property
    def measured(self) -> str:
        """What was measured, in words."""
        if self.received is None or self.outputs is None:
            return "what that changed was not measured"
        return (
            f"which moved what a layer receives by up to {self.received:.1e} and outputs by up to {self.outputs:.1e}, "
            f"relative to the largest, on {self.examples} examples"
        )


def in_dense(channels: Channels, before: SurgeryPlan | None) -> Channels:
    """Positions of each γ in the dense network, of channels of the network that a plan leaves."""
    keeps = {} if before is None else {cut.tensor: cut.keep for cut in before.cuts}
    return {
        name: tuple(keeps[name][place] for place in places) if name in keeps else places
        for name, places in channels.items()
    }


def _largest(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
