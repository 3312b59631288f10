"""within: give up as few channels of a ranking as a budget allows, by plans that are really made."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from torch import nn

from slimnet.baselines.channels import Channels
from slimnet.baselines.ranking import Ranking
from slimnet.baselines.selection import Selection, silence
from slimnet.errors import UsageError
from slimnet.inputs import ExampleInputs, Inputs
from slimnet.pipeline import check_inputs, operate
from slimnet.plan import SurgeryPlan
from slimnet.sparsity import dead_by_scale

Unit = Literal["macs", "params", "latency"]
Scope = Literal["global", "uniform"]
LatencyLeft = Callable[[nn.Module], float]
"""Measures a slim network: its latency as a fraction of the dense one's."""


@dataclass(frozen=True)
class Budget:
    """What may be left of a network: `left` is a fraction, in (0, 1], of what the dense one has or takes."""

    unit: Unit
    left: float

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise UsageError(f"a budget is in {', '.join(get_args(Unit))}; got {self.unit!r}")
        if not isinstance(self.left, int | float) or not 0 < self.left <= 1:
            raise UsageError(
                f"a budget of {self.left} is no fraction of the dense network's {self.unit} in (0, 1]; "
                "0.5 leaves one half"
            )

    def __str__(self) -> str:
        return f"{self.unit} at most {self.left:g} of the dense network's"


def within(
    model: nn.Module,
    inputs: ExampleInputs,
    ranking: Ranking,
    budget: Budget,
    *,
    scope: Scope = "global",
    latency: LatencyLeft | None = None,
) -> Selection:
    """The fewest channels, lowest scores first, without which the network is within the budget.

    Channels that can only go together have the mean of their scores, and are chosen together or not at all; what
    could not be removed is not chosen, and no layer loses its last channel. `scope` "global" holds all scores
    against one threshold, "uniform" takes the same share of every layer. The number is found by bisection, with the
    plan made for each try; `latency` measures the slim network where the budget is one of latency.

    Raises:
        UsageError: the budget cannot be met, and it says the smallest that can; scores that do not fit the network;
            a budget of latency without `latency`.
        TraceError, InputError: as `slimnet.slim` does.
    """
    if budget.unit == "latency" and latency is None:
        raise UsageError("a budget of latency needs latency=, which measures a slim network")
    search = Search(model, check_inputs(model, inputs), ranking, scope, budget, latency)
    return search.find()


@dataclass(frozen=True)
class Search:
    """The bisection over how many sets of channels go."""

    model: nn.Module
    inputs: Inputs
    ranking: Ranking
    scope: Scope
    budget: Budget
    latency: LatencyLeft | None

    def find(self) -> Selection:
        """The shortest prefix of the order that is within the budget.

        Raises:
            UsageError: even the longest is not.
        """
        low, high = -1, len(self.order)
        if self.left(0) <= self.budget.left:
            return self.selection(0)
        smallest = self.left(high)
        if smallest > self.budget.left:
            raise UsageError(
                f"{self.ranking.method} cannot leave {self.budget.left:g} of the dense network's {self.budget.unit}: "
                f"the smallest possible is {np.ceil(smallest * 1e4) / 1e4:g}"
            )
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.left(middle) <= self.budget.left else (middle, high)
        return self.selection(high)

    def left(self, count: int) -> float:
        """What is left, in the budget's unit, when the first `count` sets go."""
        narrow, plan = self.surgery(count)
        if self.budget.unit == "latency":
            assert self.latency is not None, "refused before the search"
            return self.latency(narrow)
        if self.budget.unit == "params":
            return plan.params_after / plan.params_before
        return plan.macs_after / plan.macs_before

    def surgery(self, count: int) -> tuple[nn.Module, SurgeryPlan]:
        """The slim network without the first `count` sets, and its plan."""
        quiet = silence(self.model, self.channels, self.selection(count))
        return operate(quiet, self.inputs, lambda graph: dead_by_scale(graph, quiet, self.ranking.threshold))

    def selection(self, count: int) -> Selection:
        """The first `count` sets, by layer."""
        chosen = np.zeros(self.channels.pinned.size, dtype=bool)
        chosen[self.order[:count]] = True
        return Selection(self.ranking.method, self.channels.of_sets(chosen), self.ranking.threshold)

    @cached_property
    def channels(self) -> Channels:
        """The network's channels."""
        return Channels.of(self.model, self.inputs)

    @cached_property
    def order(self) -> np.ndarray:
        """The sets in the order in which they go, without those that would leave a layer with nothing."""
        scores = set_scores(self.channels, self.ranking, self.scope)
        candidates = np.flatnonzero(~np.isnan(scores))
        ordered = candidates[np.argsort(scores[candidates], kind="stable")]
        return leaving_one(self.channels, ordered)


def set_scores(channels: Channels, ranking: Ranking, scope: Scope) -> np.ndarray:
    """The score of every set: the mean of its members', NaN where not all of them are ranked or it cannot go.

    Raises:
        UsageError: scores of a layer that the network does not have, or of another width.
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
    """The share of a layer's channels, in (0, 1], that are gone once each of them is."""
    places = np.empty(scores.size)
    places[np.argsort(scores, kind="stable")] = np.arange(1, scores.size + 1)
    return places / scores.size


def leaving_one(channels: Channels, ordered: np.ndarray) -> np.ndarray:
    """The order without the sets whose removal, after all before them, would take a layer's last channel."""
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
