"""What slimming would leave now: asked for seldom, and never at the cost of the run."""

import dataclasses

import pytest
import torch
from runs import DROPPING, finished, images, recipe, same
from torch import nn

from slimnet.pipeline import slim
from slimnet.training import Progress, train
from slimnet.training.run import slimming_forecast
from slimnet.training.run.slimming_forecast import Forecaster

PROGRESS = Progress(1, 1000, 1.0, 0.5, 0.0, seconds=0.0)


class Wandering(nn.Module):
    """Looks at its scores before it answers, so that its forward cannot be followed without data."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(128, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.scores(x.flatten(1))
        return scores if scores.sum() > 0 else scores + 1


def test_a_forecast_is_what_slimming_leaves():
    """Oracle: the network slimmed; its plan is checked against the slim network elsewhere."""
    run = train(recipe(), images())
    with torch.no_grad():
        run.model.features.bn2.weight[:3].zero_()
        run.model.features.bn2.bias[:3].fill_(-1)
    forecast = Forecaster(run).add(PROGRESS)
    plan = slim(run.model.eval(), torch.zeros(1, 2, 8, 8)).plan
    assert (forecast.macs, forecast.macs_if_slimmed) == (plan.macs_before, plan.macs_after)
    assert plan.macs_after < plan.macs_before


@pytest.mark.parametrize("plan", [recipe(), recipe(**DROPPING)])
def test_forecasts_leave_the_run_alone(plan):
    """Weights, modes and random streams, of a network that draws from them too."""
    plan, data = dataclasses.replace(plan, iterations=3), images()
    run = train(plan, data, every=1)
    forecaster, modes = Forecaster(run), [module.training for module in run.model.modules()]
    before = torch.get_rng_state()
    for progress in run:
        assert forecaster.add(dataclasses.replace(progress, seconds=1e9 * progress.iteration)).macs
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in run.model.modules()] == modes
    assert same(finished(train(plan, data)), run.model.state_dict())


def test_forecasts_take_a_hundredth_of_the_time_at_most(monkeypatch):
    """A clock of our own: a forecast takes two seconds, so the next one is due two hundred seconds later."""
    ticks = iter(range(0, 1000, 2))
    monkeypatch.setattr(slimming_forecast.time, "perf_counter", lambda: next(ticks))
    forecaster = Forecaster(train(recipe(), images()))
    asked = [0.0, 50.0, 199.0, 200.0, 300.0, 399.0, 401.0]
    known = [forecaster.add(dataclasses.replace(PROGRESS, seconds=100.0 + each)).macs is not None for each in asked]
    assert known == [True, False, False, True, False, False, True]
    assert forecaster.add(dataclasses.replace(PROGRESS, iteration=1000, seconds=502.0)).macs is not None


def test_a_network_that_cannot_be_followed_trains_without_forecasts():
    run = train(recipe(arch=f"{__name__}:Wandering", arch_args={}), images(), every=1)
    forecaster = Forecaster(run)
    assert [forecaster.add(progress).macs for progress in run] == [None] * 7
