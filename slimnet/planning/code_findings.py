"""What retraces have found out about a network's code, which the next draft of a plan takes into account."""

from dataclasses import dataclass, field, replace

from slimnet.graph.channel_graph import Op
from slimnet.planning.channel_order import MixedChannelsError
from slimnet.planning.code_pins import concerned_by, pin_op, pin_sets
from slimnet.planning.constraints import single_channel_sets
from slimnet.planning.retrace import Draft
from slimnet.planning.split_axes import ExtraPin, Turns
from slimnet.tracing.trace import InterruptedForwardError


@dataclass(frozen=True)
class CodeFindings:
    """What the code did not follow so far.

    `pins` are labels that stay, `turns` the axes that become narrower where several can; of axes with `paired` sets two
    channels stay. `uncrossed` are the first sets of crossings that did not work out, whose divisions are made equal one
    by one. `blamed` are the ops that stopped a forward. Without `packing` grouped convolutions keep their groups.
    """

    pins: tuple[ExtraPin, ...] = ()
    turns: Turns = field(default_factory=Turns)
    packing: bool = True
    paired: frozenset[int] = frozenset()
    uncrossed: frozenset[int] = frozenset()
    blamed: tuple[Op, ...] = ()

    def with_turns(self, turns: Turns, *pins: ExtraPin) -> "CodeFindings":
        """Other axes become narrower, and more labels stay."""
        return replace(self, turns=turns, pins=self.pins + pins)

    def after_mixing(self, draft: Draft, mixed: MixedChannelsError) -> "CodeFindings":
        """Channels met in the narrow network that do not belong together."""
        removal = draft.removal
        if draft.packings and self.packing:
            return replace(self, packing=False)
        if crossed := draft.crossed_by(mixed.sets):
            return replace(self, uncrossed=self.uncrossed | crossed)
        if alone := single_channel_sets(removal, mixed.sets):
            return replace(self, paired=self.paired | alone)
        pin = pin_sets(removal, mixed.sets, mixed.where)
        turns, left = self.turns.turned(removal, mixed.sets, len(removal.graph.ops), pin)
        return self.with_turns(turns, *([] if left is None else [left]))

    def after_stop(self, draft: Draft, stop: InterruptedForwardError) -> "CodeFindings":
        """The forward of the narrow network raised."""
        removal = draft.removal
        touched = concerned_by(removal.graph, removal, stop)
        if alone := single_channel_sets(removal, touched):
            return replace(self, paired=self.paired | alone)
        pin, blamed = pin_op(removal.graph, removal, stop, self.blamed)
        turns, left = self.turns.turned(removal, touched, stop.position, pin)
        return replace(self.with_turns(turns, *([] if left is None else [left])), blamed=blamed)
