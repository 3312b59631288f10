"""benchmarks/l2_schedule.py: its recipes, a run, and the comparison at equal MACs."""

import dataclasses

import l2_schedule

import slimnet
from slimnet.benchmark.counts import macs
from slimnet.data import load_data
from slimnet.training import DIGITS_DEMO, evaluate, train
from slimnet.training.recipe.machine_settings import Tuning


def run(kind: str, l2: float, macs: int, error: float) -> dict:
    """A made-up run with a hundred MACs before it was slimmed."""
    return {"kind": kind, "recipe": {"l2": l2}, "error": error, "train_loss": 0.5, "macs": [100, macs]}


def test_errors_are_compared_at_equal_macs_and_never_beyond_the_measured_ones():
    """Oracle: by hand; 20 is the geometric mean of 10 and 40."""
    constant = [run("constant", 1.0, 40, 0.10), run("constant", 2.0, 10, 0.20)]
    cycle = [run("cycle", 1.0, 20, 0.14), run("cycle", 2.0, 5, 0.30)]
    lines = l2_schedule.table({"runs": dict(enumerate(constant + cycle))}).splitlines()
    assert "| 1 | constant | 40.0 % | 10.00 % | 0.500 | 1 |" in lines
    assert lines[-1] == "- at 20.0 % of the MACs: cycle 14.00 %, constant 15.00 % (interpolated), -1.00 points"
    assert not any("at 5.0 %" in line for line in lines)


def test_the_two_kinds_differ_in_their_schedule_only():
    recipes = [l2_schedule.recipe_of(kind, 1e-3, 0, 100, "digits") for kind in l2_schedule.KINDS]
    assert [recipe.l2_schedule for recipe in recipes] == ["constant", "cycle"]
    assert dataclasses.replace(recipes[1], l2_schedule="constant") == recipes[0]


def test_a_run_is_that_of_the_command_and_is_slimmed_at_its_end():
    """Oracle: the same recipe, trained and slimmed here."""
    images = load_data("digits")
    recipe = dataclasses.replace(DIGITS_DEMO.lasting(40), l2=1e-2, l2_schedule="cycle", precision="fp32")
    found = l2_schedule.trained(recipe, images)
    again = train(recipe, images, tuning=Tuning(threads=1))
    list(again)
    example = next(images.batches("test", 16))[0]
    slimmed = slimnet.slim(again.model.eval(), example)
    assert found["kind"] == "cycle"
    assert found["macs"] == [macs(again.model, example[:1]), slimmed.plan.macs_after]
    assert found["error"] == 1 - evaluate(slimmed.model, images).top1
