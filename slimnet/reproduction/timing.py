"""Estimated times of cells, and the selection of cells that fit into a time."""

import functools
import re
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from slimnet.data import ImageData
from slimnet.errors import UsageError
from slimnet.reproduction.scales import with_share_of_filters
from slimnet.sweep import Ending
from slimnet.training import Recipe, train

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
TRIED = (2, 8)
"""The batch sizes that are timed first; if a complete batch would take long, its time is extrapolated from these."""

LONG = 1.5
"""The longest timed step in seconds."""

DYING = 40_625
"""The iterations after which an estimate assumes that all filters that die are dead: a tenth of the paper's."""

STEPS = {"cpu": 5, "cuda": 150}
"""The number of timed steps; on a GPU it includes those before the graph is captured."""


def seconds_in(text: str) -> float:
    """The seconds in a duration such as "90s", "25m", "1h30m" or "2d".

    Raises:
        UsageError: it is not a duration, or 0.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", text.lower())
    left = re.sub(r"(\d+(?:\.\d+)?)\s*([smhd])", "", text.lower()).strip()
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    if left or not total:
        raise UsageError(f"a budget of {text!r} is not a time; say it as 90s, 25m, 1h30m or 2d")
    return total


def shape_of(recipe: Recipe) -> Hashable:
    """The fields of a recipe that determine the time of a step."""
    arguments = tuple(sorted((name, str(value)) for name, value in recipe.arch_args.items() if name != "num_classes"))
    # The two CIFAR data sets differ only in their classes.
    data = recipe.data.replace("cifar100", "cifar10")
    # These determine how many filters die, and when.
    death = (recipe.optimiser, recipe.l2, recipe.weight_decay) if recipe.shrink_every else ()
    return recipe.arch, arguments, recipe.batch_size, recipe.precision, data, recipe.image_size, death


@dataclass(frozen=True)
class Stage:
    """A part of a run: the number of iterations, and a recipe whose network has the width of the run's in this part."""

    iterations: int
    recipe: Recipe


def stages_of(recipe: Recipe, dead: float) -> tuple[Stage, ...]:
    """The parts of a run for an estimate of its time; `dead` is the share of filters, 0..1, that the paper prints.

    A run that removes dead filters is assumed to have its initial width for `DYING` iterations, and then the paper's
    final share of filters in each layer. On CIFAR-10 with L2 1e-3, 82 % are dead by then. Filters do not die sooner in
    a run that is shorter: at the middle scale 36 % of them were dead after all 20,000 iterations.
    """
    whole = replace(recipe, shrink_every=0)
    if not recipe.shrink_every or not dead:
        return (Stage(recipe.iterations, whole),)
    before = min(recipe.iterations, DYING)
    after = recipe.iterations - before
    narrow = with_share_of_filters(whole, 1 - dead)
    return (Stage(before, whole), *([Stage(after, narrow)] if after else []))


def step_seconds(recipe: Recipe, size: int, *, device: str = "cpu", threads: int | None = None) -> float:
    """Time a few steps of a recipe on random images of `size` pixels; returns the median of one, in seconds."""
    if device == "cpu" and recipe.batch_size > max(TRIED):
        few, more = TRIED
        alike = replace(recipe, batch_size=1, iterations=1, drops=(), seed=0)
        first, second = (_with_images(each, alike.to_json(), size, threads) for each in TRIED)
        # The time of the optimiser does not depend on the batch size, the rest is proportional to it.
        whole = first + max(0.0, second - first) / (more - few) * (recipe.batch_size - few)
        if whole > LONG:
            return whole
    return _timed(recipe, size, device, threads, STEPS["cpu" if device == "cpu" else "cuda"])


@functools.lru_cache(maxsize=64)
def _with_images(count: int, recipe: str, size: int, threads: int | None) -> float:
    """The time of a step with this batch size; cached, because many recipes differ only in their batch size."""
    return _timed(replace(Recipe.from_json(recipe), batch_size=count), size, "cpu", threads, 1)


def _timed(recipe: Recipe, size: int, device: str, threads: int | None, steps: int) -> float:
    classes = int(recipe.arch_args["num_classes"])
    count = max(2, recipe.batch_size)
    images = torch.randint(256, (count, size, size, 3), dtype=torch.uint8, device="cpu")
    pair = images, torch.randint(classes, (count,), device="cpu")
    data = ImageData.of("random", pair, pair, [str(each) for each in range(classes)])
    every = 1 if device == "cpu" else 25
    short = replace(recipe, iterations=steps + every, drops=(), warm_start=None, warm_start_sha256=None)
    times = [progress.seconds for progress in train(short, data, device=device, threads=threads, every=every)]
    return statistics.median(after - before for before, after in pairwise(times)) / every


def chosen(costs: Mapping[str, float], budget: float | None) -> tuple[str, ...]:
    """The cells, the most informative first, that fit into a time in seconds; all of them without a budget.

    A cell that does not fit is skipped. If none fits, the first one is chosen: its progress is kept for the next call.
    """
    if budget is None:
        return tuple(costs)
    left, found = budget, []
    for name, cost in costs.items():
        if cost <= left:
            found.append(name)
            left -= cost
    return tuple(found) or tuple(costs)[:1]


def known_steps(rows: Sequence[Any]) -> dict[Hashable, float]:
    """Seconds per step by shape, from the finished rows of a sweep's store."""
    found = {}
    for row in rows:
        if row.result is not None:
            recipe = Recipe.from_json(row.recipe)
            found[shape_of(recipe)] = Ending.of(row.result).seconds / recipe.iterations
    return found
