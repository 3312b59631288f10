"""Findings of retraces about a network's code, which the next draft of a plan takes into account."""

from dataclasses import dataclass, field, replace

from slimnet.graph.channel_graph import Op
from slimnet.planning.attribute_cuts import AttributeValues, Link, named
from slimnet.planning.channel_order import MixedChannelsError
from slimnet.planning.code_pins import concerned_by, pin_op, pin_sets
from slimnet.planning.constraints import single_channel_sets
from slimnet.planning.retrace import Draft
from slimnet.planning.split_axes import AxisChoices, ExtraPin
from slimnet.tracing.trace import InterruptedForwardError


@dataclass(frozen=True)
class CodeFindings:
    """What failed in retraces so far, as restrictions of the next draft.

    `pins` are labels that must stay. `choices` are the axes chosen to become narrower where several can. Axes with
    `paired` sets keep two channels. `uncrossed` are the first sets of crossings that failed, whose divisions are made
    equal one by one. `blamed` are the ops held responsible for forwards that raised. `linked` are uses of one size,
    for which equally many channels stay. Without `packing` grouped
    convolutions keep their groups.
    """

    pins: tuple[ExtraPin, ...] = ()
    choices: AxisChoices = field(default_factory=AxisChoices)
    packing: bool = True
    paired: frozenset[int] = frozenset()
    uncrossed: frozenset[int] = frozenset()
    blamed: tuple[Op, ...] = ()
    linked: frozenset[Link] = frozenset()

    def with_choices(self, choices: AxisChoices, *pins: ExtraPin) -> "CodeFindings":
        """The findings with other axes chosen, and further pins."""
        return replace(self, choices=choices, pins=self.pins + pins)

    def after_retrace(
        self, draft: Draft, values: AttributeValues, failure: MixedChannelsError | InterruptedForwardError
    ) -> "CodeFindings":
        """The findings after a retrace failed, with attributes changed to some values."""
        if not values.links <= self.linked:
            return replace(self, linked=self.linked | values.links)
        if isinstance(failure, MixedChannelsError):
            return self.after_mixing(draft, values, failure)
        return self.after_stop(draft, values, failure)

    def after_mixing(self, draft: Draft, values: AttributeValues, mixed: MixedChannelsError) -> "CodeFindings":
        """The findings after an op of the slim network paired channels of different sets."""
        removal = draft.removal
        if draft.packings and self.packing:
            return replace(self, packing=False)
        if crossed := draft.crossed_by(mixed.sets):
            return replace(self, uncrossed=self.uncrossed | crossed)
        if alone := single_channel_sets(removal, mixed.sets):
            return replace(self, paired=self.paired | alone)
        pin = named(removal, values, pin_sets(removal, mixed.sets, mixed.where))
        choices, left = self.choices.next_choice(removal, mixed.sets, len(removal.graph.ops), pin)
        return self.with_choices(choices, *([] if left is None else [left]))

    def after_stop(self, draft: Draft, values: AttributeValues, stop: InterruptedForwardError) -> "CodeFindings":
        """The findings after the forward of the slim network raised."""
        removal = draft.removal
        touched = concerned_by(removal.graph, removal, stop)
        if alone := single_channel_sets(removal, touched):
            return replace(self, paired=self.paired | alone)
        pin, blamed = pin_op(removal.graph, removal, stop, self.blamed)
        pin = named(removal, values, pin)
        choices, left = self.choices.next_choice(removal, touched, stop.position, pin)
        return replace(self.with_choices(choices, *([] if left is None else [left])), blamed=blamed)
