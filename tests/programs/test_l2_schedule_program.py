"""benchmarks/l2_schedule.py: the strengths, a run, and the comparison at equal MACs."""

import dataclasses
import math

import l2_schedule
import pytest
from torch import nn

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


def test_the_l2_of_a_cycle_rises_and_falls_with_the_mean_of_the_constant_one():
    found = [l2_schedule.strength_at("cycle", iteration, 8) for iteration in range(8)]
    assert sum(found) == pytest.approx(8)
    assert found == pytest.approx(found[::-1])
    # sin²(x) = (1 - cos(2x)) / 2
    assert found[:2] == pytest.approx([1 - math.cos(math.pi / 8), 1 - math.cos(3 * math.pi / 8)])
    assert l2_schedule.strength_at("constant", 3, 8) == 1


def test_the_l2_of_every_scale_is_set_and_no_other():
    run = train(dataclasses.replace(DIGITS_DEMO.lasting(1), l2=0.5), load_data("digits"))
    l2_schedule.set_strength(run, 0.25)
    norms = [module for module in run.model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    found = {id(each): group["weight_decay"] for group in run.optimiser.param_groups for each in group["params"]}
    scales = {id(norm.weight) for norm in norms}
    assert len(norms) > 1
    assert all(l2 == (0.25 if each in scales else 0.5) for each, l2 in found.items())


def test_a_run_with_constant_l2_is_that_of_the_command_and_is_slimmed_at_its_end():
    """Oracle: the same recipe, trained and slimmed here."""
    images = load_data("digits")
    recipe = dataclasses.replace(DIGITS_DEMO.lasting(40), l2=1e-2, precision="fp32")
    found = l2_schedule.trained("constant", recipe, images)
    again = train(recipe, images, tuning=Tuning(threads=1))
    list(again)
    example = next(images.batches("test", 16))[0]
    slimmed = slimnet.slim(again.model.eval(), example)
    assert found["kind"] == "constant"
    assert found["macs"] == [macs(again.model, example[:1]), slimmed.plan.macs_after]
    assert found["error"] == 1 - evaluate(slimmed.model, images).top1
