"""benchmarks/l2_schedule.py: the factor on λ, the comparison at equal MACs, and a run whose γ follow the cycle."""

import dataclasses
import math

import l2_schedule
import pytest
import torch

from slimnet.data import load_data
from slimnet.training import DIGITS_DEMO, TrainingRun


def test_a_cycle_has_the_mean_of_the_constant_one_and_begins_and_ends_at_nothing():
    """Oracle: the mean over many points of the run."""
    factors = [l2_schedule.strength_at("cycle", (step + 0.5) / 1000) for step in range(1000)]
    assert sum(factors) / 1000 == pytest.approx(1)
    assert l2_schedule.strength_at("cycle", 0) == l2_schedule.strength_at("constant", 0) - 1 == 0
    assert factors[-1] < 1e-4 < 1.9 < max(factors)


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


def test_only_the_strength_of_scales_follows_the_cycle(monkeypatch):
    """Oracle: the weight decay of each parameter at every change, beside the factor of a sine squared."""
    recipe = dataclasses.replace(DIGITS_DEMO.lasting(40), l2=1e-3, precision="fp32")
    seen: list[tuple[float, set[float]]] = []
    change = l2_schedule.set_strength

    def watch(training: TrainingRun, strength: float) -> None:
        change(training, strength)
        groups = {id(each): group for group in training.optimiser.param_groups for each in group["params"]}
        norms = [module for module in training.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        (scale,) = {groups[id(norm.weight)]["weight_decay"] for norm in norms}
        others = {groups[id(norm.bias)]["weight_decay"] for norm in norms}
        seen.append((scale, others))

    monkeypatch.setattr(l2_schedule, "set_strength", watch)
    monkeypatch.setattr(l2_schedule, "CHANGED_EVERY", 10)
    found = l2_schedule.trained("cycle", recipe, load_data("digits"))
    # Changed every 10 of 40 iterations, from 0 at the start to the middle of the 10 that follow: 3/8, 5/8 and 7/8.
    factors = [2 * math.sin(math.pi * eighths / 8) ** 2 for eighths in (0, 3, 5, 7)]
    assert [scale / 1e-3 for scale, _ in seen[:4]] == pytest.approx(factors, rel=1e-4)
    assert {strength for _, others in seen for strength in others} == {1e-3}
    assert found["macs"][1] <= found["macs"][0]
