"""Training against hand calculations, a plain loop, and what a run promises about itself."""

import dataclasses
import itertools
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from callers import in_any_context
from runs import TINY, finished, images, recipe, same
from torch import nn
from torch.nn import functional

from slimnet.checkpoint import load_checkpoint
from slimnet.data import ImageData, load_data
from slimnet.errors import CheckpointError, DataError, SlimnetError, UsageError
from slimnet.training import (
    Accuracy,
    Recipe,
    batchnorm_scales,
    evaluate,
    save_checkpoint,
    sparsity_by_gamma,
    train,
)
from slimnet.training.loop.batch_order import BatchOrder
from slimnet.training.recipe.recipe import DIGITS_DEMO

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def one_thread():
    """Networks this small lose time to threads, and all of it where several tests share the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Dropping(nn.Module):
    """Scores a 2 × 8 × 8 image after dropout: a network that draws random numbers as it trains."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.dropout = nn.Dropout()
        self.scores = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(self.dropout(x.flatten(1)))


class Recording(nn.Module):
    """Remembers every training batch that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(x.detach())
        return self.bias.expand(len(x), 3)


class WithAuxiliary(Dropping):
    """Answers with a pair in training, as GoogLeNet does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = super().forward(x)
        return (scores, scores) if self.training else scores


# ---- the loop


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


@pytest.mark.parametrize(
    "network", [{}, {"arch": f"{__name__}:Dropping", "arch_args": {}}], ids=["basicnet", "dropout"]
)
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
    finished(train(recipe(arch=f"{__name__}:Dropping", arch_args={}), images()))
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


# ---- the order of the images


@pytest.mark.parametrize(("count", "batch_size"), [(12, 5), (12, 12), (3, 10), (1, 4)])
def test_every_pass_shows_every_image_once(count, batch_size):
    order = BatchOrder(count, batch_size, seed=7)
    batches = [order.batch(iteration)[0] for iteration in range(4 * count)]
    assert {len(batch) for batch in batches} == {batch_size}
    for one_pass in torch.cat(batches).split(count):
        assert sorted(one_pass.tolist()) == list(range(count))


def test_a_batch_depends_on_seed_and_iteration_alone():
    forward = [BatchOrder(12, 5, seed=7).batch(iteration) for iteration in range(9)]
    order = BatchOrder(12, 5, seed=7)
    for iteration in reversed(range(9)):
        assert all(map(torch.equal, order.batch(iteration), forward[iteration]))


def test_every_pass_and_every_seed_has_its_own_order_and_flips():
    """There are 3.6 million orders of ten images: sixteen drawn at random all differ."""
    drawn = [BatchOrder(10, 10, seed).batch(one_pass) for seed in range(4) for one_pass in range(4)]
    assert len({tuple(numbers.tolist()) for numbers, _ in drawn}) == 16
    assert len({tuple(mirrored.tolist()) for _, mirrored in drawn}) > 10


@pytest.mark.parametrize("flips", [False, True])
def test_flips_mirror_about_half_of_the_images_and_nothing_else(flips):
    data = images()
    run = train(recipe(arch=f"{__name__}:Recording", arch_args={}, iterations=48, flips=flips), data)
    finished(run)
    plain = data.normalise(data.x_train)
    order = BatchOrder(12, 5, seed=0)
    mirrored = 0
    for iteration, batch in enumerate(run.model.seen):
        for number, image in zip(order.batch(iteration)[0], batch, strict=True):
            if not torch.equal(image, plain[number]):
                assert torch.equal(image, plain[number].flip(2))
                mirrored += 1
    assert 90 < mirrored < 150 if flips else mirrored == 0


# ---- metrics


class Fixed(nn.Module):
    """Ranks seven classes by their distance from the first pixel's value."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -(x[:, 0, 0, :1] - torch.arange(7)).abs()


def test_evaluate_counts_best_and_five_best():
    """Ranks by hand: pixel 0 puts the classes in the order 0 to 6."""
    labels = torch.tensor([0, 0, 1, 4, 5, 6, 0, 3])
    pixels = torch.zeros(8, 1, 1, 1, dtype=torch.uint8)
    data = ImageData("zeros", pixels, labels, pixels, labels, tuple("abcdefg"), (0.0,), (1.0,))
    for batch_size in (3, 8):
        assert evaluate(Fixed(), data, batch_size=batch_size) == Accuracy(3 / 8, 6 / 8, 8)


def test_evaluate_of_few_classes_and_of_the_training_images():
    data = images()
    model = train(recipe(), data).model
    with torch.no_grad():
        right = model.eval()(data.normalise(data.x_train)).argmax(1) == data.y_train
    assert evaluate(model, data, "train") == Accuracy(float(right.double().mean()), 1.0, 12)


def test_evaluate_leaves_modes_statistics_and_gradients_alone():
    model = train(recipe(), images()).model
    model.features.bn1.eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, images())
    assert [module.training for module in model.modules()] == modes
    assert True in modes
    assert False in modes
    assert same(state, model.state_dict())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_sparsity_counts_convolution_channels_below_the_threshold():
    model = train(recipe(), images()).model
    with torch.no_grad():
        model.features.bn1.weight.copy_(torch.tensor([0.5, -0.0009, 0.0, -0.001]))
        model.classifier.bn1.weight.zero_()
    assert sparsity_by_gamma(model) == pytest.approx(2 / 10)
    assert sparsity_by_gamma(model, threshold=0.6) == pytest.approx(4 / 10)
    assert sparsity_by_gamma(nn.Linear(2, 2)) == 0
    assert batchnorm_scales(model)["features.bn1"].tolist() == pytest.approx([0.5, -0.0009, 0.0, -0.001])


# ---- checkpoints


def test_a_checkpoint_is_read_safely_by_torch_and_by_slimnet(tmp_path):
    run = train(recipe(), images())
    finished(run)
    path = save_checkpoint(run.model, tmp_path / "last.pt", run.recipe, run.iteration)
    content = torch.load(path, weights_only=True)
    assert Recipe.from_json(content["recipe"]) == run.recipe
    assert content["iteration"] == 7
    assert same(run.model.state_dict(), content["state_dict"])
    assert all(tensor.is_contiguous() for tensor in content["state_dict"].values())
    assert same(run.model.state_dict(), load_checkpoint(path, "basicnet", TINY).state_dict())


def test_a_checkpoint_replaces_the_last_one_and_leaves_nothing_else(tmp_path):
    model = train(recipe(), images()).model
    for iteration in (1, 2):
        save_checkpoint(model, tmp_path / "last.pt", recipe(), iteration)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert torch.load(tmp_path / "last.pt", weights_only=True)["iteration"] == 2


@pytest.fixture
def no_room_for_files():
    """Files may not grow beyond 1 kB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_checkpoint_alone(tmp_path, no_room_for_files):
    path = tmp_path / "last.pt"
    path.write_bytes(b"old")
    with pytest.raises(CheckpointError, match=r"cannot write .*last\.pt: .+; free it up or name another place"):
        save_checkpoint(train(recipe(), images()).model, path, recipe(), 1)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["last.pt"]


@pytest.mark.parametrize("where", ["missing/last.pt", "file/last.pt", "."])
def test_a_place_that_cannot_be_written_is_named(tmp_path, where):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot write \S+: .+; \w+") as caught:
        save_checkpoint(nn.Linear(1, 1), Path(tmp_path, where), recipe(), 1)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]


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
