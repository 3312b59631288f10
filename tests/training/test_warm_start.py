"""Beginning with trained weights, and the forecast of when γ dies: against torch's own steps and short formulas."""

import hashlib
import math
from dataclasses import replace

import pytest
import torch
from runs import TINY, recipe
from torch import nn

from slimnet.errors import CheckpointError, UsageError
from slimnet.models import build
from slimnet.training import Recipe, save_checkpoint
from slimnet.training.recipe.optimisers import make_optimiser
from slimnet.training.recipe.recipe import BASE_SETTINGS
from slimnet.training.recipe.regularisers import Regularisers
from slimnet.training.warm_start import first_network, iterations_to_kill, path, with_digest

OPTIMISERS = sorted(BASE_SETTINGS)


def scales(*values: float) -> nn.BatchNorm2d:
    """A network that is one BatchNorm with these γ."""
    norm = nn.BatchNorm2d(len(values), dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(values, dtype=torch.float64))
    return norm


def really(gamma: float, chosen: Recipe, steps: int) -> list[float]:
    """The oracle: torch's optimiser on one γ whose loss has no gradient."""
    model = scales(gamma)
    optimiser, regularisers = make_optimiser(chosen, model), Regularisers(chosen, model)
    found = [gamma]
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        regularisers.before_step(optimiser)
        optimiser.step()
        regularisers.after_step(1.0)
        found.append(model.weight.item())
    return found


# ---- the forecast


@pytest.mark.parametrize(
    "penalty", [{"l2": 1e-2}, {"l2": 0.5, "decoupled": 1e-2, "l1_gamma": 0.1, "weight_decay": 1e-3}], ids=str
)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_the_forecast_takes_the_steps_that_torch_takes(optimiser, penalty):
    """All the way to zero and beyond it where they go so far, at the paper's settings with a larger rate."""
    base = BASE_SETTINGS[optimiser]["lr"]
    chosen = recipe(optimiser=optimiser, lr=5 * base, gamma_lr_scale=0.9, **penalty)
    expected = really(0.7, chosen, 250)
    found = [value for value, _ in zip(path(0.7, chosen), expected, strict=False)]
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_nesterovs_steps_are_taken_too():
    chosen = recipe(optimiser="sgd", nesterov=True, l2=0.1)
    found = [value for value, _ in zip(path(1.0, chosen), range(51), strict=False)]
    assert found == pytest.approx(really(1.0, chosen, 50), rel=1e-9)


@pytest.mark.parametrize("gamma", [1.0, 0.3])
@pytest.mark.parametrize("l2", [1e-3, 1e-4])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_the_forecast_is_what_the_formulas_say(optimiser, l2, gamma):
    """At the paper's settings, for the sizes of λ it uses; the formulas are the docstring's."""
    chosen = recipe(optimiser=optimiser, l2=l2)
    lr, logarithm = chosen.lr, math.log(gamma / 1e-3)
    forgotten = math.log(1 / chosen.betas[1])
    lowest, highest = {
        "sgd": [factor * 0.1 / (lr * l2) * logarithm for factor in (0.98, 1.0)],
        "adam": [gamma / lr, gamma / lr + 2 / (1 - math.sqrt(chosen.betas[1]))],
        "rmsprop": [gamma / lr, gamma / lr + 2 / (1 - math.sqrt(chosen.rho))],
        "amsgrad": [0.5 * gamma / lr * logarithm, gamma / lr * logarithm],
        "adamax": [f * math.log(1 + logarithm * gamma * forgotten / lr) / forgotten for f in (0.9, 1.0)],
        "adagrad": [f * (gamma**2 * (2 * logarithm - 1) + 1e-6) / (8 * lr**2) for f in (1.0, 1.15)],
        "adadelta": [f * logarithm / (lr * l2) for f in (0.9, 1.1)],
    }[optimiser]
    assert lowest <= iterations_to_kill(scales(gamma), chosen).all <= highest


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_weight_decay_is_a_plain_exponential_under_every_optimiser(optimiser):
    """ln(1000)/−ln(1 − 0.01) = 687.3 steps; decoupled, the learning rate is a factor."""
    paper = iterations_to_kill(scales(1.0), recipe(optimiser=optimiser, weight_decay=0.01))
    assert paper.all == 688
    decoupled = iterations_to_kill(scales(1.0), recipe(optimiser=optimiser, lr=0.1, decoupled=0.1))
    assert decoupled.all == 688


def test_l1_takes_its_constant_share_under_sgd():
    """Without momentum γ falls by lr·λ a step: 0.999/0.005 = 199.8 steps."""
    chosen = recipe(optimiser="sgd", momentum=0.0, lr=0.01, l1_gamma=0.5)
    assert iterations_to_kill(scales(1.0), chosen).all == 200


def test_the_median_and_the_largest_gamma_are_distinguished():
    """Of five sizes the median is 0.2, whatever the signs; two are dead already."""
    forecast = iterations_to_kill(scales(-0.4, 1e-4, 0.2, -1e-5, 0.3), recipe(weight_decay=0.01))
    assert forecast.dead == pytest.approx(2 / 5)
    assert (forecast.median, forecast.all) == tuple(
        math.ceil(math.log(size / 1e-3) / -math.log(0.99)) for size in (0.2, 0.4)
    )
    assert iterations_to_kill(scales(-0.4, 0.2), recipe(weight_decay=0.01), threshold=0.3).median == 0


def test_drops_are_left_out_and_the_length_of_the_run_does_not_matter():
    short = recipe(l2=1e-4, iterations=10, drops=(2,))
    assert iterations_to_kill(scales(1.0), short) == iterations_to_kill(scales(1.0), recipe(l2=1e-4))


def test_without_a_regulariser_or_a_learning_rate_nothing_is_expected_to_die():
    assert iterations_to_kill(scales(1.0, 1e-9), recipe()).all is None
    assert iterations_to_kill(scales(1e-9), recipe()).all == 0
    assert iterations_to_kill(scales(1.0), recipe(optimiser="sgd", lr=1e-9, l2=1e-9)).all is None
    assert iterations_to_kill(scales(1.0), recipe(l2=1e-4, gamma_lr_scale=0.0)).all is None


def test_what_cannot_be_forecast_is_refused():
    with pytest.raises(UsageError, match="Linear has no BatchNorm"):
        iterations_to_kill(nn.Linear(2, 2), recipe(l2=1.0))
    for threshold in (0.0, -1.0, math.nan):
        with pytest.raises(UsageError, match=r"the threshold is .* it must be above 0"):
            iterations_to_kill(scales(1.0), recipe(l2=1.0), threshold)


# ---- the weights


def test_a_run_begins_with_the_weights_of_a_checkpoint(tmp_path):
    model = build("basicnet", TINY)
    chosen = with_digest(recipe(warm_start=str(save_checkpoint(model, tmp_path / "old.pt", recipe(), 7))))
    assert chosen.warm_start_sha256 == hashlib.sha256((tmp_path / "old.pt").read_bytes()).hexdigest()
    found = first_network(chosen).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in model.state_dict().items())


def test_a_bare_state_dict_of_somebody_elses_will_do(tmp_path):
    model = build("basicnet", TINY)
    torch.save({"model": {f"module.{name}": value for name, value in model.state_dict().items()}}, tmp_path / "a.pth")
    found = first_network(recipe(warm_start=str(tmp_path / "a.pth"))).state_dict()
    assert torch.equal(found["features.conv1.weight"], model.features.conv1.weight)


def test_a_run_without_a_warm_start_begins_at_random(tmp_path):
    """With the same numbers as `build`, and the stream goes on from the same place as with a checkpoint."""
    torch.manual_seed(3)
    expected, following = build("basicnet", TINY), torch.rand(1)
    save_checkpoint(expected, tmp_path / "old.pt", recipe(), 7)
    for chosen in (recipe(), recipe(warm_start=str(tmp_path / "old.pt"))):
        torch.manual_seed(3)
        assert torch.equal(first_network(chosen).features.conv1.weight, expected.features.conv1.weight)
        assert torch.equal(torch.rand(1), following)
    assert with_digest(recipe()) == recipe()


def test_a_checkpoint_that_changed_since_is_refused(tmp_path):
    place = save_checkpoint(build("basicnet", TINY), tmp_path / "a.pt", recipe(), 1)
    chosen = with_digest(recipe(warm_start=str(place)))
    save_checkpoint(build("basicnet", TINY), place, recipe(), 1)
    with pytest.raises(CheckpointError, match=r"a\.pt has changed: the recipe was written for a file with SHA-256"):
        first_network(chosen)
    assert first_network(replace(chosen, warm_start_sha256=None))


def test_a_checkpoint_that_is_missing_or_does_not_fit_is_refused(tmp_path):
    missing = recipe(warm_start=str(tmp_path / "none.pt"))
    for begin in (with_digest, first_network):
        with pytest.raises(CheckpointError, match=r"none\.pt"):
            begin(missing)
    save_checkpoint(build("basicnet", TINY | {"num_classes": 2}), tmp_path / "two.pt", recipe(), 1)
    with pytest.raises(CheckpointError, match=r"two\.pt"):
        first_network(recipe(warm_start=str(tmp_path / "two.pt")))
