"""What becomes of a plan's dead channels, as shares, and the lines of code and the layers that keep most of them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from slimnet.graph.reasons import Cause
from slimnet.surgery.plan_data import Kept, PlanData

LINES_SHOWN = 2
"""The lines of code that a share names; of others it says how many there are."""

RANKED = 5
"""The lines of code and the layers that are shown where only the first few are."""


@dataclass(frozen=True)
class Share:
    """Dead channels that stay for one cause; `lines` are those of the code where it is one, most channels first."""

    cause: Cause
    channels: int
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        places = list(self.lines[:LINES_SHOWN])
        more = len(self.lines) - len(places)
        places += [f"{more} more line{'s' if more > 1 else ''}"] if more else []
        cause = self.cause.of(self.channels)
        return f"since {cause} ({', '.join(places)})" if places else f"since {cause}"


@dataclass(frozen=True)
class DeadShares:
    """What becomes of the dead output channels of all layers: each is removed, or kept for exactly one cause.

    Of those `removed`, `live` were alive in the dense network: a method chose them, and they are dead since they were
    masked.
    """

    removed: int
    kept: tuple[Share, ...]
    live: int = 0

    @classmethod
    def of(cls, plan: PlanData) -> "DeadShares":
        """The shares of a plan, the largest first."""
        channels: Counter[Cause] = Counter()
        lines: defaultdict[Cause, Counter[str]] = defaultdict(Counter)
        for each in plan.kept:
            channels[each.cause] += len(each.channels)
            if each.line:
                lines[each.cause][each.line] += len(each.channels)
        shares = [
            Share(cause, count, tuple(line for line, _ in lines[cause].most_common()))
            for cause, count in channels.most_common()
            if count
        ]
        return cls(plan.removed_channels, tuple(shares), plan.live)

    @property
    def dead(self) -> int:
        """All dead channels, masked ones too: those that are removed and all shares of those that stay."""
        return self.removed + sum(share.channels for share in self.kept)

    @property
    def kept_in_words(self) -> str:
        """How many stay and why, such as "40 are kept since a width is a number in the code (block.py:31)"."""
        clauses = [f"{share.channels:,} {share}" for share in self.kept]
        if clauses:
            first = self.kept[0]
            clauses[0] = f"{first.channels:,} {'is' if first.channels == 1 else 'are'} kept {first}"
        return "; ".join(clauses)

    def to_data(self) -> dict[str, Any]:
        """The shares as plain data."""
        kept = [
            {"cause": share.cause.name.lower(), "because": share.cause.value, "channels": share.channels}
            | {"lines": list(share.lines)}
            for share in self.kept
        ]
        return {"dead": self.dead, "removed": self.removed, "live": self.live, "kept": kept}

    def __str__(self) -> str:
        """Such as "of 1,000 dead channels 930 are removed; 70 are kept since …"; empty where none is dead.

        Where live channels are removed as well, "388 channels removed: 2 dead, 386 live; 1 is kept since …".
        """
        if not self.dead:
            return ""
        what = self._removed_with_live if self.live else self._removed_of_dead
        return f"{what}; {self.kept_in_words}" if self.kept else what

    @property
    def _removed_with_live(self) -> str:
        """How many dead and how many live channels are removed."""
        channels = "channel" if self.removed == 1 else "channels"
        return f"{self.removed:,} {channels} removed: {self.removed - self.live:,} dead, {self.live:,} live"

    @property
    def _removed_of_dead(self) -> str:
        """How many of the dead channels are removed."""
        number = f"{self.removed:,} {'is' if self.removed == 1 else 'are'}" if self.removed else "none is"
        removed = "all are" if self.dead == self.removed > 1 else number
        return f"of {self.dead:,} dead channel{'' if self.dead == 1 else 's'} {removed} removed"


@dataclass(frozen=True)
class Holder:
    """A line of code or a layer that keeps dead channels: how many, of how many layers, and the most frequent reason.

    `reason` leaves out the line, and `help` is the remedy in a few words, empty where there is none.
    """

    name: str
    channels: int
    layers: int
    reason: str
    help: str

    @classmethod
    def of(cls, name: str, kept: Iterable[Kept]) -> "Holder":
        """What one line or layer keeps."""
        channels: Counter[tuple[str, str]] = Counter()
        layers = set()
        for each in kept:
            channels[reason_without_line(each), each.help] += len(each.channels)
            layers.add(each.layer)
        reason, advice = channels.most_common(1)[0][0]
        return cls(name, channels.total(), len(layers), reason, advice)


def rank_lines(plan: PlanData) -> tuple[Holder, ...]:
    """The lines of code that keep dead channels, those that keep most first."""
    return ranked((kept for kept in plan.kept if kept.line), lambda kept: kept.line)


def rank_layers(plan: PlanData) -> tuple[Holder, ...]:
    """The layers whose dead channels stay, those with most first."""
    return ranked(plan.kept, lambda kept: kept.layer)


def ranked(kept: Iterable[Kept], name: Callable[[Kept], str]) -> tuple[Holder, ...]:
    """Kept channels by a name, most channels first."""
    groups: defaultdict[str, list[Kept]] = defaultdict(list)
    for each in kept:
        if each.channels:
            groups[name(each)].append(each)
    holders = [Holder.of(found, group) for found, group in groups.items()]
    return tuple(sorted(holders, key=lambda holder: -holder.channels))


def ranking_lines(plan: PlanData) -> list[str]:
    """The first lines of code and layers as text, under a heading each."""
    found = []
    for heading, holders in (("lines of code", rank_lines(plan)), ("layers", rank_layers(plan))):
        if holders:
            found.append(f"{heading} that keep most dead channels")
            found += [f"  {holder.name}: {holder.channels:,}, {holder.reason}" for holder in holders[:RANKED]]
    return found


def reason_without_line(kept: Kept) -> str:
    """A reason in words with its op alone where it has a line of code; of an unknown kind the plan's own words."""
    kind = kept.known_kind
    return kept.reason if kind is None or not kept.line else kind.sentence.format(place=kept.op, detail="")
