"""Training against hand calculations, a plain loop, and what a run promises about itself."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from callers import in_any_context
from runs import DROPPING, TINY, Dropping, finished, images, recipe, same
from torch import nn
from torch.nn import functional

from slimnet.data import load_data
from slimnet.errors import DataError, SlimnetError, UsageError
from slimnet.training import evaluate, sparsity_by_gamma, train
from slimnet.training.loop.batch_order import BatchOrder
from slimnet.training.recipe.recipe import DIGITS_DEMO

pytestmark = pytest.mark.usefixtures("one_thread")


class WithAuxiliary(Dropping):
    """Answers with a pair in training, as GoogLeNet does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = super().forward(x)
        return (scores, scores) if self.training else scores


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_the_learning_rate_drops_to_a_tenth(optimiser):
    """Where only L2 has a gradient, plain SGD has θ ← (1 − lr·λ)·θ and Adam steps by about lr."""
    changes = {"optimiser": optimiser, "momentum": 0.0, "lr": 0.01, "l2": 0.5, "iterations": 4, "drops": (3,)}
    run = train(recipe(arch=f"{__name__}:Unmoved", arch_args={}, **changes), images(), every=1)
    path = [run.model.weight.item() for _ in itertools.chain([0], run)]
    if optimiser == "sgd":
        assert path == pytest.approx([1, 0.995, 0.995**2, 0.995**3, 0.995**3 * 0.9995])
    else:
        assert path[:4] == pytest.approx([1, 0.99, 0.98, 0.97], abs=1e-3)
        assert path[3] - path[4] == pytest.approx(0.001, rel=0.1)


class Unmoved(nn.Module):
    """One weight that the loss does not depend on, though it has a gradient of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (0 * self.weight).expand(len(x), 3)


def test_the_run_equals_a_plain_loop():
    """The oracle is the loop anybody would write: torch's Adam, NumPy's floats, batch after batch."""
    data, plan = images(), recipe(l2=0.01, lr=0.01, drops=(4,), eps=1e-4)
    run = train(plan, data)
    pixels = data.x_train.numpy().astype(np.float64).transpose(0, 3, 1, 2) / 255
    pixels -= pixels.mean(axis=(0, 2, 3), keepdims=True)
    pixels /= pixels.std(axis=(0, 2, 3), keepdims=True)
    model = train(plan, data).model
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.9, 0.99), eps=1e-4, weight_decay=0.01)
    order = BatchOrder(12, 5, seed=0)
    losses = []
    for iteration in range(7):
        optimiser.param_groups[0]["lr"] = 0.01 if iteration < 4 else 0.001
        numbers, _ = order.batch(iteration)
        loss = functional.cross_entropy(model(torch.from_numpy(pixels)[numbers].float()), data.y_train[numbers])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    reports = list(train(plan, data, every=3))
    means = [np.mean(losses[0:3]), np.mean(losses[3:6]), losses[6]]
    assert [report.loss for report in reports] == pytest.approx(means, rel=1e-4)
    torch.testing.assert_close(finished(run), model.state_dict(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("network", [{}, DROPPING], ids=["basicnet", "dropout"])
def test_a_run_is_the_same_whatever_happens_between_its_reports(network):
    """Bit for bit, also when others draw random numbers, measure the network in eval mode, or want other reports."""
    data, plan = images(), recipe(seed=3, flips=True, **network)
    expected = finished(train(plan, data))
    run = train(plan, data, every=2)
    run.model.eval()
    for _ in run:
        torch.rand(5)
        evaluate(run.model, data)
        run.model.eval()
    assert same(expected, run.model.state_dict())
    assert not same(expected, finished(train(dataclasses.replace(plan, seed=4), data)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@in_any_context
def test_a_run_is_the_same_in_any_context_of_its_caller(context, precision):
    """Bit for bit, also where it removes channels. What the caller had is there again between the steps."""
    data, plan = images(), recipe(precision=precision, shrink_every=2)
    expected = finished(train(plan, data))
    run = train(plan, data, every=2)
    with context():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        for _ in run:
            after = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
            assert after == before
    assert same(expected, run.model.state_dict())


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    finished(train(recipe(**DROPPING), images()))
    assert torch.equal(torch.rand(4), expected)


def test_a_run_can_be_left_and_taken_up_again():
    run = train(recipe(), images(), every=3)
    assert [progress.iteration for progress in itertools.islice(run, 2)] == [3, 6]
    assert [progress.iteration for progress in run] == [7]
    assert list(run) == []


def test_reports_come_after_at_least_one_step():
    with pytest.raises(UsageError, match="a report every 0 iterations"):
        train(recipe(), images(), every=0)


def test_progress_says_where_the_run_stands():
    reports = list(train(recipe(iterations=250), images()))
    assert [report.iteration for report in reports] == [*range(3, 250, 3), 250]
    assert {report.total for report in reports} == {250}
    assert all(earlier.seconds < later.seconds for earlier, later in itertools.pairwise(reports))
    assert reports[-1].loss < reports[0].loss
    assert reports[-1].accuracy > 0.9


def test_a_run_out_of_patience_reports_after_every_step_and_ends_with_the_same_bits():
    """Oracle: the run that reports when it is due, whose losses are the means of these."""
    patient = train(recipe(), images(), every=3)
    due = [progress.loss for progress in patient]
    hasty = train(recipe(), images(), every=3, patience=0.0)
    losses = [progress.loss for progress in hasty]
    assert len(losses) == 7
    assert due == pytest.approx([sum(part) / len(part) for part in (losses[:3], losses[3:6], losses[6:])])
    assert same(patient.model.state_dict(), hasty.model.state_dict())


@pytest.mark.parametrize(("iterations", "points"), [(1, 1), (7, 7), (50, 50), (333, 50)])
def test_history_keeps_about_fifty_points_and_the_end(iterations, points):
    run = train(recipe(iterations=iterations), images())
    reports = list(run)
    assert len(run.history) == points
    assert run.history[-1].progress == reports[-1]
    scales = run.history[-1].scales
    assert {name: len(scale) for name, scale in scales.items()} == {
        "features.bn1": 4,
        "features.bn2": 6,
        "classifier.bn1": 8,
    }
    assert torch.equal(scales["features.bn2"], run.model.features.bn2.weight.detach())


def test_a_loss_that_is_not_finite_ends_the_run():
    with pytest.raises(SlimnetError, match=r"the loss became nan between .* learning rate below 1e\+30"):
        finished(train(recipe(lr=1e30, iterations=20), images()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 1}, "does not take the images of noise .2 x 8 x 8, channels first.: RuntimeError"),
        ({"pool_after": [1, 2], "widths": [4] * 4 + [4]}, None),
        ({"num_classes": 2}, r"answers .* with \(1, 2\); it must be scores \(1, 3\)"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused_at_once(changes, message):
    if message is None:
        assert train(recipe(arch_args=TINY | changes), images()).iteration == 0
        return
    with pytest.raises(DataError, match=message):
        train(recipe(arch_args=TINY | changes), images())


def test_auxiliary_outputs_are_refused_in_words():
    with pytest.raises(UsageError, match="answers with tuple in training"):
        next(train(recipe(arch=f"{__name__}:WithAuxiliary", arch_args={}), images()))


# ---- the demo's recipe


def test_the_demo_recipe_begins_to_learn_the_digits():
    """A hundred of its steps are enough to read most digits, and far too few for a filter to die."""
    run = train(DIGITS_DEMO.lasting(100), load_data(DIGITS_DEMO.data))
    finished(run)
    assert evaluate(run.model, load_data("digits")).top1 > 0.9
    assert sparsity_by_gamma(run.model) < 0.1


@pytest.mark.sweep
@pytest.mark.parametrize("seed", [0, 1])
def test_the_demo_recipe_kills_most_filters_and_reads_the_digits(seed):
    run = train(dataclasses.replace(DIGITS_DEMO, seed=seed), load_data(DIGITS_DEMO.data))
    finished(run)
    assert evaluate(run.model, load_data("digits")).top1 >= 0.98
    assert sparsity_by_gamma(run.model) >= 0.6
