"""A run that is validated while it trains: the same weights as without, and the best ones kept beside the last."""

import dataclasses
from pathlib import Path

import pytest
import torch
from runs import everything, finished, images, recipe, same
from test_resume import DROPPING, metrics
from test_shrinking_runs import WIDTHS, dying
from test_shrinking_runs import start as start

import slimnet
from slimnet.data.validation import hold_out
from slimnet.errors import DataError, UsageError
from slimnet.training import Recipe, evaluate, train
from slimnet.training.run.evaluation_points import EvaluationPoints
from slimnet.training.run.resumable_run import Interval, KeptRun
from slimnet.training.run.run_folder import create_run, reopen_run
from slimnet.training.run.validation import Best, Validation

PLAN = recipe(iterations=40, held_out=0.25, lr=0.02, seed=2)
EVALUATIONS = 9


class Killed(BaseException):
    """The end of a process that saves nothing."""


def keep(path: Path, plan: Recipe, evaluations: int = EVALUATIONS, killed_at: int = 0) -> KeptRun:
    """Train in a folder, taking it up where there is a run; a process may be killed during a step."""
    with reopen_run(path) if path.exists() else create_run(path, plan) as folder:
        begin = lambda state: train(plan, images(24), every=2, threads=1, state=state)  # noqa: E731
        kept = KeptRun(folder, begin, interval=Interval(9), evaluations=evaluations)
        advance = kept.run._advance

        def step(iteration: int) -> None:
            if killed_at and iteration + 1 == killed_at:
                raise Killed
            advance(iteration)

        kept.run._advance = step
        for _ in kept:
            pass
        kept.close()
    return kept


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a run that nothing interrupted."""
    path = tmp_path_factory.mktemp("validated") / "run"
    keep(path, PLAN)
    return path


def best_of(path: Path) -> dict:
    return torch.load(path / "model_best.pt", weights_only=True)


def course(path: Path) -> list[tuple[int, float]]:
    return [(line["iteration"], line["validation_accuracy"]) for line in metrics(path) if "validation_accuracy" in line]


@pytest.mark.parametrize("changes", [{}, DROPPING, {"held_out": 0.25}], ids=["plain", "random numbers", "held out"])
def test_evaluations_change_nothing_that_is_trained(tmp_path, changes):
    """Oracle: the same run without any; weights, optimiser and random streams, bit for bit."""
    plan = recipe(iterations=12, **changes)
    without, with_them = (keep(tmp_path / str(count), plan, count) for count in (0, 6))
    assert all(map(torch.equal, everything(without.run), everything(with_them.run)))
    assert len(course(tmp_path / "6")) == 6
    assert course(tmp_path / "0") == []
    assert not (tmp_path / "0" / "model_best.pt").exists()


def test_evaluations_change_nothing_where_filters_are_removed(tmp_path, start):
    """And the best weights have the shapes of the dense network, with zeros."""
    plan = dying(start)
    without, with_them = (keep(tmp_path / str(count), plan, count) for count in (0, 8))
    assert without.run.plan is not None
    assert all(map(torch.equal, everything(without.run), everything(with_them.run)))
    found = best_of(tmp_path / "8")
    dense = slimnet.build("basicnet", WIDTHS)
    dense.load_state_dict(found["state_dict"])
    assert evaluate(dense, images(24)).top1 == found["validation_accuracy"]


def test_held_out_images_are_not_trained_on_and_test_images_stay(whole):
    """Oracle: a run without held-out images, on the data set without them."""
    data = images(24)
    split = hold_out(data, 0.25)
    rest = dataclasses.replace(split, x_test=data.x_test, y_test=data.y_test)
    run = train(PLAN, data, threads=1)
    alone = finished(train(dataclasses.replace(PLAN, held_out=0.0), rest, threads=1))
    assert same(finished(run), alone)
    assert torch.equal(run.data.x_test, data.x_test)
    assert torch.equal(run.validation.x_test, split.x_test)
    assert same(torch.load(whole / "model.pt", weights_only=True)["state_dict"], alone)


def test_evaluations_are_even_and_the_best_of_them_is_kept(whole):
    """Oracle: the networks of a run in memory, evaluated at these iterations."""
    split, weights = hold_out(images(24), 0.25), {}
    run, accuracies = train(PLAN, images(24), every=2, threads=1), {}
    for progress in run:
        accuracies[progress.iteration] = evaluate(run.model, split).top1
        weights[progress.iteration] = {name: value.clone() for name, value in run.model.state_dict().items()}
    # The first reports at which one, two, ... ninths of forty iterations are done.
    assert course(whole) == [(at, accuracies[at]) for at in (6, 10, 14, 18, 24, 28, 32, 36, 40)]
    first = max(course(whole), key=lambda point: point[1])
    found = best_of(whole)
    assert (found["iteration"], found["validation_accuracy"]) == first
    assert first[0] not in (6, 40), "otherwise this says little"
    assert same(found["state_dict"], weights[first[0]])
    assert Recipe.from_json(found["recipe"]) == PLAN
    highest = [line["validation_best"] for line in metrics(whole) if "validation_best" in line]
    assert highest == [max(value for _, value in course(whole)[: n + 1]) for n in range(EVALUATIONS)]


@pytest.mark.parametrize("killed_at", [[3], [15, 20], [21, 31, 40]])
def test_a_killed_run_keeps_the_same_best_weights(whole, tmp_path, killed_at):
    """Killed before its first checkpoint, and after evaluations that it repeats, the best one at 14 among them.

    Oracle: the run that was not interrupted.
    """
    path = tmp_path / "run"
    for iteration in killed_at:
        with pytest.raises(Killed):
            keep(path, PLAN, killed_at=iteration)
    keep(path, PLAN)
    assert metrics(path) == metrics(whole)
    expected, found = best_of(whole), best_of(path)
    assert same(found.pop("state_dict"), expected.pop("state_dict"))
    assert found == expected


def test_evaluations_depend_neither_on_early_reports_nor_on_interruptions():
    """By hand: the first multiples of four at which one, two, ... ninths of forty iterations are done."""
    run = train(recipe(iterations=40), images(24), every=4, patience=0, threads=1)
    points = EvaluationPoints(run, 9)
    reports = [(progress.iteration, points.reached()) for progress in run]
    assert len(reports) == 40
    assert [iteration for iteration, reached in reports if reached] == [8, 12, 16, 20, 24, 28, 32, 36, 40]
    stopped = train(recipe(iterations=40), images(24), every=4, threads=1)
    stopped.advance_to(9)
    again = train(recipe(iterations=40), images(24), every=4, threads=1, state=stopped.state())
    points = EvaluationPoints(again, 9)
    # Two ninths are done at 9, and were to be evaluated at the next report.
    assert [progress.iteration for progress in again if points.reached()] == [12, 16, 20, 24, 28, 32, 36, 40]


@pytest.mark.parametrize("content", [b"half", {"iteration": 4}, {"iteration": 4, "validation_accuracy": 1.5}])
def test_best_weights_that_cannot_be_read_are_set_aside(tmp_path, content):
    path = tmp_path / "model_best.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    run = train(PLAN, images(24), every=20)
    validation = Validation(run, 1, path)
    assert validation.damaged == (tmp_path / "model_best.pt.damaged",)
    assert validation.best is None
    *_, last = (validation.add(progress) for progress in run)
    assert validation.best == Best(40, last.validation_accuracy)
    assert Validation(run, 1, path).best == validation.best


def test_what_cannot_be_validated_is_refused(tmp_path):
    run = train(PLAN, images(24))
    with pytest.raises(UsageError, match="-1 evaluations cannot be; give 0 for none"):
        Validation(run, -1, tmp_path / "best.pt")
    for share in (-0.1, 1.0, "a tenth", None):
        with pytest.raises(UsageError, match=f"the recipe's held_out is {share!r}; it must be a number of at least 0"):
            recipe(held_out=share)
    with pytest.raises(UsageError, match="of 24 training images cannot be held out"):
        train(recipe(held_out=0.01), images(24))
    with pytest.raises(DataError, match="no part of it is held out"):
        train(PLAN, dataclasses.replace(images(24), mapped=True))
