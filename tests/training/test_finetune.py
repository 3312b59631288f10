"""Fine-tuning trains the very network it is given, tests it on the way, and goes on where it was."""

from pathlib import Path

import pytest
import torch
from runs import TINY, finished, images, recipe, same

from slimnet.errors import UsageError
from slimnet.models import build
from slimnet.training import Accuracy, TrainingRun, evaluate, finetune
from slimnet.training.finetune import Finetuning, Point, retraining, without_dust
from slimnet.training.run import checkpoint_times
from slimnet.training.run.checkpoint_times import Interval
from slimnet.training.warm_start import first_network


def network(seed: int = 0, **changes: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build("basicnet", TINY | changes)


def test_a_network_that_is_given_is_trained_like_the_one_a_recipe_builds():
    """Oracle: the run that builds its network itself; the same weights to begin with."""
    plan = recipe()
    torch.manual_seed(plan.seed)
    given = first_network(plan)
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    assert same(finished(TrainingRun(plan, images(), model=given)), finished(TrainingRun(plan, images())))
    assert same(given.state_dict(), before), "the network that was given is not touched"


def test_a_network_of_widths_that_no_recipe_names_is_trained():
    slim = network(widths=[3, 5])
    tuning = Finetuning(slim, recipe(), images(), threads=1)
    list(tuning)
    assert [tuple(each.shape) for each in tuning.model.parameters()] == [tuple(p.shape) for p in slim.parameters()]
    assert not torch.equal(tuning.model.features.conv1.weight, slim.features.conv1.weight)


def test_it_is_tested_evenly_and_at_the_end():
    """Oracle: the accuracy of the network as it is then."""
    tuning = Finetuning(network(), recipe(iterations=10), images(), evaluations=3, threads=1)
    seen = []
    for progress in tuning:
        if tuning.course and tuning.course[-1].iteration == progress.iteration:
            seen.append(Point(progress.iteration, 1 - evaluate(tuning.model, tuning.run.data).top1))
    assert tuning.course == seen
    assert [point.iteration for point in seen] == [4, 7, 10]


def test_interrupted_it_goes_on_from_its_folder_with_the_same_bits(tmp_path):
    plan = recipe(iterations=10)
    whole = Finetuning(network(), plan, images(), threads=1)
    list(whole)
    first = Finetuning(network(), plan, images(), folder=tmp_path, threads=1)
    while len(first.course) < 2:
        next(first)
    again = Finetuning(network(seed=5), plan, images(), folder=tmp_path, threads=1)
    assert again.run.iteration == 5
    list(again)
    assert same(again.model.state_dict(), whole.model.state_dict())
    assert again.course == whole.course


@pytest.mark.parametrize("killed_at", [2, 5, 9])
def test_killed_between_evaluations_it_goes_on_from_its_last_checkpoint(tmp_path, killed_at):
    """Oracle: the fine-tuning that nothing interrupted; its evaluations are at 4, 7 and 10."""

    def tuning(folder: Path | None) -> Finetuning:
        each = Interval(iterations=1)
        return Finetuning(network(), recipe(iterations=10), images(), evaluations=3, folder=folder, interval=each)

    whole, first = tuning(None), tuning(tmp_path)
    list(whole)
    for _ in range(killed_at):
        next(first)
    again = tuning(tmp_path)
    assert again.run.iteration == killed_at
    list(again)
    assert same(again.model.state_dict(), whole.model.state_dict())
    assert again.course == whole.course


def test_by_default_it_stores_a_checkpoint_a_minute(tmp_path, monkeypatch):
    """A clock of which every step takes twenty-five seconds."""
    tuning = Finetuning(network(), recipe(iterations=9), images(), evaluations=1, folder=tmp_path)
    now = [0.0]
    monkeypatch.setattr(checkpoint_times.time, "monotonic", lambda: now[0])
    tuning._times = checkpoint_times.CheckpointTimes(Interval(), -1)
    stored = []
    for progress in tuning:
        stored += [progress.iteration] if (tmp_path / f"{progress.iteration:08d}.pt").exists() else []
        now[0] += 25
    assert stored == [4, 7, 9]


def test_the_best_weights_are_kept_also_over_an_interruption(tmp_path, monkeypatch):
    """With errors that fall and rise again; oracle: the weights as they are at the second evaluation."""
    errors = dict(zip((4, 7, 10), (0.5, 0.25, 0.75), strict=True))

    def tuning() -> Finetuning:
        found = Finetuning(
            network(), recipe(iterations=10), images(), evaluations=3, keep_best=True, folder=tmp_path, threads=1
        )
        given = lambda *_: Accuracy(1 - errors[found.run.iteration], 1.0, 12)  # noqa: E731
        monkeypatch.setattr(finetune, "evaluate", given)
        return found

    first = tuning()
    assert first.best is None
    while len(first.course) < 2:
        next(first)
    expected = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    again = tuning()
    list(again)
    assert again.run.iteration == 10
    assert same(again.best, expected)
    assert not same(again.model.state_dict(), expected)


def test_what_is_left_of_a_dead_filter_is_zero_and_stays_so():
    """A dead channel that was kept for its constant: γ is 0, its filter far below rounding, its β alive."""
    model = network()
    with torch.no_grad():
        model.features.conv1.weight[0] *= 1e-20
        model.features.bn1.weight[0], model.features.bn1.bias[0] = 0, 0.3
    clean, example = without_dust(model).eval(), torch.randn(4, 2, 8, 8)
    torch.testing.assert_close(clean(example), model.eval()(example))
    tuning = Finetuning(model, recipe(l2=1e-2), images(), threads=1)
    list(tuning)
    trained = tuning.model.features
    assert not trained.conv1.weight[0].any()
    assert not trained.bn1.weight[0].any()
    assert trained.bn1.bias[0] != 0.3
    assert model.features.conv1.weight[0].any(), "the network that was given is not touched"


def test_it_does_not_go_on_from_another_recipe(tmp_path):
    list(Finetuning(network(), recipe(), images(), folder=tmp_path, threads=1))
    with pytest.raises(UsageError, match="was begun with lr"):
        Finetuning(network(), recipe(lr=0.5), images(), folder=tmp_path)


def test_without_a_test_it_is_refused():
    with pytest.raises(UsageError, match="at least 1"):
        Finetuning(network(), recipe(), images(), evaluations=0)


def test_retraining_is_that_of_li_et_al():
    """Oracle: the paper's section 4: SGD at a constant learning rate of 1e-3."""
    plan = retraining("resnet56", "cifar10", 500)
    assert (plan.optimiser, plan.lr, plan.drops, plan.iterations) == ("sgd", 1e-3, (), 500)


def test_retraining_with_adam_takes_its_own_learning_rate():
    plan = retraining("vgg16", "cifar10", 10, optimiser="adam", flips=True)
    assert (plan.optimiser, plan.lr, plan.flips) == ("adam", 1e-3, True)
    assert retraining("vgg16", "cifar10", 10, optimiser="adam", lr=0.01).lr == 0.01
