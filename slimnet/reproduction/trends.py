"""The trends that the paper states, each as a claim that is tested on our results."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from slimnet.errors import UsageError
from slimnet.reproduction.catalogue import Entry, document, entry
from slimnet.reproduction.results import Result
from slimnet.reproduction.scales import Scale


@dataclass(frozen=True)
class Verdict:
    """A claim, and whether it holds for the means of our results; None if some of them are missing.

    `values` are our means over the seeds, in the order in which they are claimed to decrease, and `paper` the printed
    ones likewise. `spreads` are half the ranges over the seeds, 0 for a single seed, and `seeds` is the smallest number
    of seeds. `close` is whether the seeds leave it open: a decisive pair of adjacent values differs by less than the
    sum of its spreads. `why` is an explanation, such as the presumed reason if the claim does not hold.
    """

    claim: str
    holds: bool | None
    values: tuple[float, ...]
    paper: tuple[float, ...]
    spreads: tuple[float, ...] = ()
    seeds: int = 0
    close: bool = False
    why: str = ""


def verdicts(results: Mapping[str, Result]) -> list[Verdict]:
    """Every claim."""
    return [_of_layers(trend, results) if "cell" in trend else _of_cells(trend, results) for trend in claims()]


def claims() -> Sequence[Mapping[str, Any]]:
    """The trends, from the data file."""
    found: Sequence[Mapping[str, Any]] = document("experiments.json")["trends"]
    return found


def cells() -> tuple[Entry, ...]:
    """The networks of the claims, each once, in order."""
    named = [cell for trend in claims() for cell in trend.get("cells", [trend.get("cell")])]
    return tuple({each.name: each for each in (entry(*cell) for cell in named) if each.of is None}.values())


def falls(values: Sequence[float]) -> bool:
    """Whether numbers never increase, and the last is below the first."""
    return all(one >= two for one, two in pairwise(values)) and values[0] > values[-1]


def _of_cells(trend: Mapping[str, Any], results: Mapping[str, Result]) -> Verdict:
    """A claim about networks, possibly including quoted results of another method, which are at full scale."""
    entries, reading = [entry(*place) for place in trend["cells"]], trend["reading"]
    paper = tuple(_number(each.paper[reading]) for each in entries)
    own = {each.name: results.get(each.name) for each in entries if each.of is None}
    found = [each for each in own.values() if each is not None]
    mixed = len(own) < len(entries) and any(each.scale != "full" for each in found)
    if mixed or len(found) < len(own):
        return Verdict(trend["claim"], None, (), paper)
    fewest = min(len(each.runs) for each in found)
    sides = [
        _seeds(own[each.name], reading) if each.name in own else [printed] * fewest
        for each, printed in zip(entries, paper, strict=True)
    ]
    return _judged(trend, sides, paper, found[0].scale)


def _seeds(result: Result | None, reading: str) -> list[float]:
    """A reading of each run."""
    return [_number(run.readings[reading]) for run in result.runs] if result else []


def _of_layers(trend: Mapping[str, Any], results: Mapping[str, Result]) -> Verdict:
    """A claim about the layers of one network: the mean of those in `more` exceeds that of those in `less`."""
    each = entry(*trend["cell"])
    paper = _sides(trend, each.paper["layers"])
    if each.name not in results:
        return Verdict(trend["claim"], None, (), paper)
    layers: list[Any] = [run.readings["layers"] for run in results[each.name].runs]
    if any(len(own) != len(each.paper["layers"]) for own in layers):  # type: ignore[arg-type]
        raise UsageError(f"the result of {each.name} has another number of layers than the paper; delete it")
    runs = [_sides(trend, own) for own in layers]
    return _judged(trend, list(zip(*runs, strict=True)), paper, results[each.name].scale)


def _sides(trend: Mapping[str, Any], layers: Any) -> tuple[float, ...]:
    """The mean sparsity of the layers in `more`, and of those in `less`."""
    return tuple(statistics.fmean(layers[place - 1] for place in trend[side]) for side in ("more", "less"))


def _judged(
    trend: Mapping[str, Any], sides: Sequence[Sequence[float]], paper: tuple[float, ...], scale: Scale
) -> Verdict:
    """The verdict on the means over the seeds of each side; stored explanations apply to one scale each."""
    means = tuple(statistics.fmean(seeds) for seeds in sides)
    spreads = tuple((max(seeds) - min(seeds)) / 2 for seeds in sides)
    holds, fewest = falls(means), min(len(seeds) for seeds in sides)
    why = trend.get(f"holds_{scale}" if holds else f"why_{scale}", "")
    return Verdict(trend["claim"], holds, means, paper, spreads, fewest, is_close(means, spreads), why)


def is_close(means: Sequence[float], spreads: Sequence[float]) -> bool:
    """Whether the seeds leave it open if numbers decrease: decisive adjacent values differ by less than their spreads.

    If the numbers decrease, any such pair leaves it open; otherwise all increasing pairs must be such pairs.
    """
    rooms = [one + two for one, two in pairwise(spreads)]
    drops = [one - two for one, two in pairwise(means)]
    if falls(means):
        return any(drop < room for drop, room in zip(drops, rooms, strict=True))
    rises = [(-drop, room) for drop, room in zip(drops, rooms, strict=True) if drop < 0]
    return bool(rises) and all(rise < room for rise, room in rises)


def _number(value: Any) -> float:
    return float(value)
