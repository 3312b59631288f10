"""How long cells take, as a dry run estimates it, and which of them fit into a budget."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from slimnet.durations import in_words
from slimnet.errors import UsageError
from slimnet.reproduction import catalogue, timing
from slimnet.reproduction.scales import recipe_of
from slimnet.reproduction.variation import Variation
from slimnet.shrinking.optimizer_state import check_optimiser
from slimnet.training import Recipe
from slimnet.training.recipe.optimisers import make_optimiser


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("25m", 1500), ("1h30m", 5400), ("0.5h", 1800), ("2d", 172800)]
)
def test_a_budget_is_a_duration(text, seconds):
    assert timing.seconds_in(text) == seconds


@pytest.mark.parametrize("text", ["", "25", "soon", "0m", "-5m", "5 parsecs"])
def test_a_budget_that_is_no_duration_is_refused(text):
    with pytest.raises(UsageError, match="say it as 90s, 25m"):
        timing.seconds_in(text)


def test_a_budget_takes_what_fits_in_order_of_worth_and_always_something():
    costs = {"a": 50.0, "b": 70.0, "c": 30.0, "d": 15.0}
    assert timing.chosen(costs, None) == ("a", "b", "c", "d")
    assert timing.chosen(costs, 100) == ("a", "c", "d")
    assert timing.chosen(costs, 10) == ("a",)
    assert timing.chosen({}, 10) == ()


def test_steps_are_timed_on_the_recipes_own_network():
    recipe = recipe_of(catalogue.entry("table4", "32-0.25x", "cifar10"), "small")
    narrow = replace(recipe, arch_args=recipe.arch_args | {"widths": [2, 2], "pool_after": [1]}, batch_size=4)
    assert 0 < timing.step_seconds(narrow, 8, threads=1) < 5


def test_every_recipe_of_the_paper_can_shrink():
    """Its optimisers leave removed channels at zero, so that no cell is refused after hours."""
    recipes = [recipe_of(entry, "full", variation=Variation(shrink_every=500)) for entry in catalogue.by_worth()]
    kinds = {recipe.optimiser: recipe for recipe in recipes if recipe is not None}
    assert len(kinds) >= 6
    for recipe in kinds.values():
        check_optimiser(make_optimiser(recipe, torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))))


@pytest.mark.parametrize(
    ("fields", "dead", "expected"),
    [
        ({"shrink_every": 500}, 0.75, [(40_625, "64-1x"), (365_625, [16, 32, 32, 64, 64, 128, 128])]),
        ({"shrink_every": 500}, 1.0, [(40_625, "64-1x"), (365_625, [1] * 7)]),
        ({"shrink_every": 0}, 0.75, [(406_250, "64-1x")]),
        ({"shrink_every": 500}, 0.0, [(406_250, "64-1x")]),
        ({"shrink_every": 500, "iterations": 20_000}, 0.75, [(20_000, "64-1x")]),
    ],
)
def test_an_estimate_gives_a_run_that_shrinks_its_first_width_until_filters_are_dead(fields, dead, expected):
    """Oracle: the paper's schedule; a run of a twentieth of it ends while its filters die."""
    recipe = replace(recipe_of(catalogue.entry("table4", "64-1x", "cifar10"), "full"), drops=())
    stages = timing.stages_of(replace(recipe, **fields), dead)
    assert [(stage.iterations, stage.recipe.arch_args.get("widths", "64-1x")) for stage in stages] == expected


def test_an_estimate_narrows_a_vgg_by_its_factor():
    recipe = Recipe(arch="vgg16", data="cifar10", iterations=50_000, arch_args={"width": 0.5}, shrink_every=5)
    assert [stage.recipe.arch_args["width"] for stage in timing.stages_of(recipe, 0.5)] == [0.5, 0.25]


def test_long_steps_are_reckoned_from_short_ones_and_these_are_timed_once(monkeypatch):
    """Oracle: a step that takes 10 ms for the optimiser and 50 ms for each image."""
    timed = []

    def step(recipe, *_):
        timed.append(recipe.batch_size)
        return 0.01 + 0.05 * recipe.batch_size

    monkeypatch.setattr(timing, "_timed", step)
    timing._with_images.cache_clear()
    rows = [recipe_of(catalogue.entry("table6", f"batch {batch}", "imagenet"), "full") for batch in (64, 256)]
    for recipe in (*rows, replace(rows[0], batch_size=20)):
        assert timing.step_seconds(recipe, 8, threads=1) == pytest.approx(0.01 + 0.05 * recipe.batch_size)
    assert timed == [2, 8, 20]
    timing._with_images.cache_clear()


def test_durations_are_for_people():
    printed = [in_words(seconds) for seconds in (4, 40, 1500, 12_600, 1e6, float("inf"))]
    assert printed == ["4 s", "40 s", "25 min", "3.5 h", "12 days", "–"]
    assert all(one != two for one, two in pairwise(printed))
