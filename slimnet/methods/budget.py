"""select_within_budget: the fewest channels of a ranking that meet a budget, found by making the actual plans."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from torch import nn

from slimnet.errors import UsageError
from slimnet.methods.candidates import Channels
from slimnet.methods.remove import Selection, plan_and_mask
from slimnet.methods.scores import Ranking
from slimnet.modules.example_inputs import ExampleInputs, Inputs, check_inputs
from slimnet.planning.asked_layers import as_patterns, find_layers
from slimnet.planning.width_rounding import Rounding
from slimnet.surgery.plan import SurgeryPlan
from slimnet.training.recipe.channel_cost import Piece, layer_macs, parameter_sizes

Unit = Literal["macs", "params", "channels", "latency"]
Scope = Literal["global", "uniform"]
TIMED_TRIES = 64
"""The number of steps into which the channels are divided for a budget of latency."""
LatencyLeft = Callable[[nn.Module], float]
"""Measures a slim network: its latency as a fraction of the dense one's."""


@dataclass(frozen=True)
class Budget:
    """The size of the slim network: `left` is a fraction, in (0, 1], of the dense network's.

    "channels" are those of the layers that a method ranks, as in the percentiles of Liu et al. 2017.
    """

    unit: Unit
    left: float

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise UsageError(f"a budget is in {', '.join(get_args(Unit))}; got {self.unit!r}")
        if not isinstance(self.left, int | float) or not 0 < self.left <= 1:
            raise UsageError(
                f"a budget of {self.left} is not a fraction of the dense network's {self.unit} in (0, 1]; "
                "0.5 leaves one half"
            )

    def __str__(self) -> str:
        return f"{self.unit} at most {self.left:g} of the dense network's"


def select_within_budget(
    model: nn.Module,
    inputs: ExampleInputs,
    ranking: Ranking,
    budget: Budget,
    *,
    scope: Scope = "global",
    round_to: int | Mapping[str, int] | Rounding | None = None,
    latency: LatencyLeft | None = None,
    keep: str | Sequence[str] = (),
) -> Selection:
    """The fewest channels, lowest scores first, whose removal brings the network within the budget.

    Channels that can only be removed together have the mean of their scores, and are chosen together or not at all;
    channels that cannot be removed are not chosen, and no layer loses its last channel. `scope` "global" compares all
    scores with one threshold, "uniform" removes the same share of every layer. The number is found by bisection from an
    arithmetic estimate, with an actual plan for each step; `latency` measures the slim network for a budget of
    latency. `round_to` and `keep` are those of `slimnet.slim` (`FastWidths().rounding()` for "fast"); the subsequent
    `remove_selected` needs the same `round_to`, and finds `keep` in the selection.

    Raises:
        UsageError: the budget cannot be met (the message has the smallest possible one), scores do not fit the
            network, or a budget of latency is given without `latency`.
        TraceError, InputError: as `slimnet.slim` does.
    """
    if budget.unit == "latency" and latency is None:
        raise UsageError("a budget of latency needs latency=, which measures a slim network")
    search = Search(model, check_inputs(model, inputs), ranking, scope, round_to, budget, latency, as_patterns(keep))
    return search.find()


@dataclass(frozen=True)
class Search:
    """The search for the number of sets to remove; `sizes` caches the remaining size by that number."""

    model: nn.Module
    inputs: Inputs
    ranking: Ranking
    scope: Scope
    round_to: int | Mapping[str, int] | Rounding | None
    budget: Budget
    latency: LatencyLeft | None
    keep: tuple[str, ...] = ()
    sizes: dict[int, float] = field(default_factory=dict)

    def find(self) -> Selection:
        """The shortest prefix of the order that is within the budget, searched from the expected number.

        Raises:
            UsageError: even the longest prefix exceeds it.
        """
        low, high = self.bracket(self.expected())
        while high - low > self.grain:
            middle = (low + high) // 2
            low, high = (low, middle) if self.fits(middle) else (middle, high)
        return self.selection(high)

    def bracket(self, start: int) -> tuple[int, int]:
        """A count that is not within the budget (or -1) and a larger one that is, in growing steps from `start`."""
        step, longest = self.grain, len(self.order)
        if self.fits(start):
            low, high = start - step, start
            while low >= 0 and self.fits(low):
                step *= 2
                low, high = low - step, low
            return max(low, -1), high
        low, high = start, min(start + step, longest)
        while not self.fits(high):
            if high == longest:
                raise self.refusal()
            step *= 2
            low, high = high, min(high + step, longest)
        return low, high

    def refusal(self) -> UsageError:
        """The error message, with the size of the smallest possible network."""
        smallest = np.ceil(self.left(len(self.order)) * 1e4) / 1e4
        return UsageError(
            f"{self.ranking.method} cannot leave {self.budget.left:g} of the dense network's {self.budget.unit}: "
            f"the smallest possible is {smallest:g}"
        )

    def fits(self, count: int) -> bool:
        """Whether the network without the first `count` sets is within the budget."""
        return self.left(count) <= self.budget.left

    def left(self, count: int) -> float:
        """The remaining size, in the budget's unit, without the first `count` sets."""
        if count not in self.sizes:
            narrow, plan = plan_and_mask(self.model, self.inputs, self.channels, self.selection(count), self.round_to)
            self.sizes[count] = self.measured(narrow, plan)
        return self.sizes[count]

    def measured(self, narrow: nn.Module, plan: SurgeryPlan) -> float:
        """The remaining size of a slim network."""
        if self.budget.unit == "params":
            return plan.params_after / plan.params_before
        if self.budget.unit == "macs":
            return plan.macs_after / plan.macs_before
        if self.budget.unit == "channels":
            ranked = [layer for layer in plan.layers if layer.name in self.ranking.scores]
            return sum(each.channels_after for each in ranked) / sum(each.channels_before for each in ranked)
        assert self.latency is not None, "refused before the search"
        return self.latency(narrow) if plan.removed_channels else 1.0

    def expected(self) -> int:
        """The expected number of sets if each saves only its own cost; latency is taken as proportional to MACs."""
        pieces = self.pieces()
        whole = sum(size for size, _ in pieces)
        low, high = 0, len(self.order)
        while low < high:
            middle = (low + high) // 2
            kept = np.ones(self.channels.pinned.size)
            kept[self.order[:middle]] = 0
            left = sum(size * math.prod(kept[axis].mean() for axis in axes) for size, axes in pieces)
            low, high = (low, middle) if left <= self.budget.left * whole else (middle + 1, high)
        return low

    def pieces(self) -> list[Piece]:
        """The tensors or layers that shrink with the channels, in the budget's unit."""
        graph, sets = self.channels.graph, self.channels.sets
        if self.budget.unit == "params":
            return list(parameter_sizes(graph, sets, self.model))
        if self.budget.unit == "channels":
            ranked = [self.channels.layers[layer] for layer in self.ranking.scores]
            return [(members.size, (members,)) for members in ranked]
        return list(layer_macs(graph, sets))

    @property
    def grain(self) -> int:
        """The step of the search for the number of sets: one, or more if each step must be timed."""
        return max(1, len(self.order) // TIMED_TRIES) if self.budget.unit == "latency" else 1

    def selection(self, count: int) -> Selection:
        """The first `count` sets, by layer."""
        chosen = np.zeros(self.channels.pinned.size, dtype=bool)
        chosen[self.order[:count]] = True
        ranking, channels = self.ranking, self.channels.of_sets(chosen)
        return Selection(ranking.method, channels, ranking.threshold, str(self.budget), keep=self.keep)

    @cached_property
    def channels(self) -> Channels:
        """The network's channels."""
        return Channels.of(self.model, self.inputs)

    @cached_property
    def order(self) -> np.ndarray:
        """The sets in the order of their removal, without those whose removal would leave a layer without channels."""
        scores = set_scores(self.channels, self.ranking, self.scope)
        for layer in find_layers(self.channels.graph, self.keep):
            scores[self.channels.layers[layer]] = np.nan
        candidates = np.flatnonzero(~np.isnan(scores))
        ordered = candidates[np.argsort(scores[candidates], kind="stable")]
        return leaving_one(self.channels, ordered)


def set_scores(channels: Channels, ranking: Ranking, scope: Scope) -> np.ndarray:
    """The score of every set: the mean of its members', NaN if not all are ranked or it cannot be removed.

    Raises:
        UsageError: there are scores of a layer that the network does not have, or that has another width.
    """
    if scope not in get_args(Scope):
        raise UsageError(f"scope is {scope!r}; it must be 'global' or 'uniform'")
    total = np.zeros(channels.pinned.size)
    for layer, scores in ranking.scores.items():
        if layer not in channels.layers or channels.layers[layer].shape != np.shape(scores):
            raise UsageError(f"the ranking by {ranking.method} has scores for {layer} that do not fit the network")
        values = np.asarray(scores, dtype=float)
        np.add.at(total, channels.layers[layer], values if scope == "global" else shares(values))
    members, writers = channels.count(ranking.scores), channels.writers
    whole = (members > 0) & (members == writers) & ~channels.pinned
    return np.where(whole, total / np.maximum(members, 1), np.nan)


def shares(scores: np.ndarray) -> np.ndarray:
    """The rank of each channel in its layer as a fraction in (0, 1]: the share of channels removed up to it."""
    ranks = np.empty(scores.size)
    ranks[np.argsort(scores, kind="stable")] = np.arange(1, scores.size + 1)
    return ranks / scores.size


def leaving_one(channels: Channels, ordered: np.ndarray) -> np.ndarray:
    """The order without the sets whose removal, after all sets before them, would remove a layer's last channel."""
    holders: dict[int, list[tuple[str, int]]] = {}
    for layer, sets in channels.layers.items():
        for number, copies in zip(*np.unique(sets, return_counts=True), strict=True):
            holders.setdefault(int(number), []).append((layer, int(copies)))
    left = {layer: sets.size for layer, sets in channels.layers.items()}
    going = []
    for number in ordered.tolist():
        if all(left[layer] > copies for layer, copies in holders[number]):
            going.append(number)
            for layer, copies in holders[number]:
                left[layer] -= copies
    return np.array(going, dtype=np.int64)
