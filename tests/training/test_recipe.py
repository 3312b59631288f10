"""Recipes: what they refuse, what they fill in, and that they survive being written down."""

import dataclasses
import json
import math

import pytest
from runs import recipe

from slimnet.errors import UsageError
from slimnet.sweep import Cell
from slimnet.training import Recipe
from slimnet.training.recipe.recipe import BASE_SETTINGS, DIGITS_DEMO, LATER


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimiser": "sgd", "lr": 0.1, "weight_decay": 1e-3},
        {"arch_args": {"widths": (3, 4)}, "betas": [0.8, 0.9], "drops": [3, 5]},
        {"optimiser": "rmsprop", "crop": 4, "precision": "bf16", "cost_aware": "macs", "beta_init": -1},
        {"warm_start": "old.pt", "warm_start_sha256": "ab", "image_size": 64, "sync_batchnorm": True},
    ],
)
def test_a_recipe_survives_json(changes):
    written = recipe(**changes)
    assert Recipe.from_json(written.to_json()) == written
    assert json.loads(written.to_json())["arch"] == "basicnet"


def test_a_recipe_does_not_share_its_arguments():
    arguments = {"widths": [4]}
    kept = recipe(arch_args=arguments)
    arguments["widths"].append(5)
    assert kept.arch_args == {"widths": [4]}
    assert recipe().drops == ()
    assert [recipe(drops=(2,)).schedule_scale(iteration) for iteration in (0, 1, 2, 9)] == [1, 1, 0.1, 0.1]


def test_a_cosine_begins_at_1_is_half_in_the_middle_and_would_end_at_0():
    falling = recipe(iterations=8, cosine=True)
    found = [falling.schedule_scale(iteration) for iteration in (0, 2, 4, 8)]
    assert found == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, 0])
    assert falling.lasting(4).schedule_scale(2) == pytest.approx(0.5)


@pytest.mark.parametrize(("iterations", "drop_at"), [(100, 60), (5000, 3000), (1, 1)])
def test_another_length_drops_at_the_same_share(iterations, drop_at):
    longer = recipe(iterations=2500, drops=(1500,)).lasting(iterations)
    assert (longer.iterations, longer.drops) == (iterations, (drop_at,))
    assert recipe().lasting(iterations) == recipe(iterations=iterations)


@pytest.mark.parametrize(
    "changes",
    [
        {"arch": ""},
        {"data": None},
        {"arch_args": [1]},
        {"arch_args": {"net": {1}}},
        {"arch_args": {"slope": math.nan}},
        {"iterations": 0},
        {"iterations": 2.5},
        {"iterations": True},
        {"batch_size": -1},
        {"drops": (0,)},
        {"seed": -1},
        {"optimiser": "adamw"},
        {"lr": 0},
        {"lr": math.nan},
        {"lr": math.inf},
        {"lr": "1e-3"},
        {"eps": 0},
        {"l2": -1e-4},
        {"weight_decay": 1.0},
        {"momentum": 1.0},
        {"betas": (0.9,)},
        {"betas": (0.9, 1.0)},
        {"betas": 0.9},
        {"flips": 1},
        {"drops": (3, 2)},
        {"drops": (2, 2)},
        {"drops": 3},
        {"drop_factor": 1.5},
        {"crop": -1},
        {"image_size": 0},
        {"precision": "fp16"},
        {"cost_aware": "seconds"},
        {"decoupled": 1.0},
        {"l1_gamma": -1},
        {"gamma_lr_scale": -0.1},
        {"beta_init": math.inf},
        {"rho": 1.0},
        {"nesterov": True},
        {"warm_start": 3},
        {"warm_start": ""},
        {"gamma_init": 0.5, "warm_start": "old.pt"},
        {"beta_init": 0.0, "warm_start": "old.pt"},
        {"sync_batchnorm": "yes"},
        {"cosine": 1},
        {"drops": (2,), "cosine": True},
    ],
    ids=str,
)
def test_an_impossible_recipe_is_refused_by_field(changes):
    with pytest.raises(UsageError, match=f"the recipe's {next(iter(changes))}") as caught:
        recipe(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        ('{"arch": "basicnet", "data": "digits"}', "lacks 'iterations'; its fields are arch, data"),
        ('{"arch": "basicnet", "data": "digits", "iterations": 1, "lamda": 1}', "has no field 'lamda'"),
        ('{"arch": "basicnet", "data": "digits", "iterations": null}', "iterations is None"),
    ],
)
def test_json_that_is_no_recipe_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        Recipe.from_json(text)


@pytest.mark.parametrize(
    ("optimiser", "lr", "rest"),
    [
        ("sgd", 0.1, {"momentum": 0.9}),
        ("adam", 1e-3, {"betas": (0.9, 0.99), "eps": 1e-8}),
        ("amsgrad", 1e-3, {"betas": (0.9, 0.99)}),
        ("adamax", 2e-3, {}),
        ("adadelta", 1.0, {"rho": 0.9, "eps": 1e-6}),
        ("adagrad", 1e-2, {}),
        ("rmsprop", 1e-3, {}),
    ],
)
def test_an_optimiser_comes_with_the_papers_settings(optimiser, lr, rest):
    """Those that DESIGN and the paper print; a value that is given stays."""
    filled = recipe(optimiser=optimiser)
    assert filled.lr == lr
    assert all(getattr(filled, name) == value for name, value in rest.items())
    assert recipe(optimiser=optimiser, lr=0.5, eps=1e-3).lr == 0.5
    assert set(BASE_SETTINGS) == {"sgd", "adam", "amsgrad", "adamax", "adadelta", "adagrad", "rmsprop"}


def test_each_drop_multiplies_the_schedules_scale_once_more():
    """Network Slimming's: a tenth at half and at three quarters."""
    two = recipe(iterations=8, drops=(4, 6))
    assert [two.schedule_scale(i) for i in (0, 3, 4, 5, 6, 7)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert two.lasting(80).drops == (40, 60)
    assert recipe(drops=(2,), drop_factor=0.5).schedule_scale(2) == 0.5


@pytest.mark.parametrize(("drop_at", "drops"), [(1500, (1500,)), (None, ())])
def test_a_recipe_of_an_earlier_version_is_read(drop_at, drops):
    """It had one drop, by another name, and fewer fields."""
    old = {"arch": "basicnet", "data": "digits", "iterations": 2500, "drop_at": drop_at, "lr": 5e-3}
    read = Recipe.from_json(json.dumps(old))
    assert (read.drops, read.lr, read.optimiser) == (drops, 5e-3, "adam")


def test_the_demo_is_written_with_every_field():
    written = json.loads(DIGITS_DEMO.to_json())
    assert set(written) == {each.name for each in dataclasses.fields(Recipe)} - set(LATER)
    assert None not in (written["lr"], written["betas"], written["momentum"], written["rho"])


def test_runs_that_are_named_by_their_recipe_keep_their_names_as_fields_are_added():
    """Oracle: the digests of these recipes in version 0.1.0, when folders of sweeps and reproductions were named."""
    assert [Cell(each, "").key for each in (DIGITS_DEMO, DIGITS_DEMO.lasting(100))] == ["abb7462ff0ca", "3ad0ed4b89ee"]
    rounded = dataclasses.replace(DIGITS_DEMO, shrink_every=50, shrink_round=8)
    assert Recipe.from_json(rounded.to_json()) == rounded
    assert len({Cell(dataclasses.replace(rounded, shrink_round=n), "").key for n in (1, 8, 16)}) == 3
    held = dataclasses.replace(DIGITS_DEMO, held_out=0.1)
    assert Recipe.from_json(held.to_json()) == held
    assert Cell(held, "").key != Cell(DIGITS_DEMO, "").key
    assert Recipe.from_json(DIGITS_DEMO.to_json()).held_out == 0.0


@pytest.mark.parametrize("multiple", [0, 1.5, True, -8])
def test_widths_are_rounded_to_whole_numbers(multiple):
    with pytest.raises(UsageError, match="shrink_round"):
        recipe(shrink_every=5, shrink_round=multiple)


def test_rounding_without_shrinking_is_refused():
    with pytest.raises(UsageError, match="shrink_round is 8; it must be 1, since the run does not shrink"):
        recipe(shrink_round=8)
