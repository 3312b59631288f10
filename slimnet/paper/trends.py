"""The trends that the paper states, each as a claim that holds among our results or does not."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from slimnet.paper.catalogue import document, entry
from slimnet.paper.results import Result


@dataclass(frozen=True)
class Verdict:
    """A claim: whether it holds among our results, None where some of them are missing.

    `values` are ours in the order in which they ought to fall, `paper` the printed ones likewise; `why` says, where
    it does not hold, what we take to be the reason.
    """

    claim: str
    holds: bool | None
    values: tuple[float, ...]
    paper: tuple[float, ...]
    why: str = ""


def verdicts(results: Mapping[str, Result]) -> list[Verdict]:
    """Every claim."""
    return [_of_layers(trend, results) if "cell" in trend else _of_cells(trend, results) for trend in claims()]


def claims() -> Sequence[Mapping[str, Any]]:
    """The trends as they are written down."""
    found: Sequence[Mapping[str, Any]] = document("experiments.json")["trends"]
    return found


def falls(values: Sequence[float]) -> bool:
    """Whether numbers never rise, and end below where they begin."""
    return all(one >= two for one, two in pairwise(values)) and values[0] > values[-1]


def _of_cells(trend: Mapping[str, Any], results: Mapping[str, Result]) -> Verdict:
    entries, reading = [entry(*place) for place in trend["cells"]], trend["reading"]
    paper = tuple(_number(each.paper[reading]) for each in entries)
    if any(each.name not in results for each in entries):
        return Verdict(trend["claim"], None, (), paper)
    values = tuple(_number(results[each.name].mean(reading)) for each in entries)
    return Verdict(trend["claim"], falls(values), values, paper, _why(trend, values, results[entries[0].name]))


def _of_layers(trend: Mapping[str, Any], results: Mapping[str, Result]) -> Verdict:
    """A claim on the layers of one network: those in `more` are, taken together, above those in `less`."""
    name = entry(*trend["cell"]).name
    if name not in results:
        return Verdict(trend["claim"], None, (), ())
    layers = results[name].mean("layers")
    assert isinstance(layers, tuple)
    values = tuple(statistics.fmean(layers[place - 1] for place in trend[side]) for side in ("more", "less"))
    return Verdict(trend["claim"], falls(values), values, (), _why(trend, values, results[name]))


def _why(trend: Mapping[str, Any], values: Sequence[float], result: Result) -> str:
    """The reason that is written down for the small scale, where the claim does not hold at it."""
    return "" if falls(values) or result.scale == "full" else trend.get("why_small", "")


def _number(value: Any) -> float:
    return float(value)
