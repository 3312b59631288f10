"""Methods are judged alike, nothing is done twice whatever ends it, and what comes out can be written and read."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from processes import LONGEST_WAIT, forkserver
from runs import TINY, images

from slimnet.benchmark import parameters
from slimnet.comparison import Outcome, Results, Settings, Study
from slimnet.errors import DataError, UsageError
from slimnet.methods import Budget, remove_selected, score_channels, select_within_budget
from slimnet.models import build
from slimnet.training import evaluate
from slimnet.training.finetune import Finetuning, Point, retraining, sparsifying

HALF = Budget("macs", 0.5)
TUNED = retraining("basicnet", "noise", 6, batch_size=5)


def network(**changes: object) -> torch.nn.Module:
    """A small network with telling γ, of which two are dead."""
    torch.manual_seed(0)
    model = build("basicnet", TINY | {"widths": [8, 12]} | changes)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.2)
        model.features.bn1.weight[:2] = 0
        model.features.bn1.bias[:2] = -0.1
    return model


def settings(**changes: object) -> Settings:
    given = {"methods": ("implicit", "li2017", "random"), "budgets": (HALF,), "finetuning": TUNED, "seconds": 0}
    return Settings(**{"evaluations": 2, "threads": 1} | given | changes)


def study(folder: Path, **changes: object) -> Study:
    return Study("tiny", network(), images(60), settings(**changes), folder)


def done(folder: Path, **changes: object) -> Results:
    work = study(folder, **changes)
    list(work)
    return work.results()


def timeless(results: Results) -> list[Outcome]:
    """What does not depend on the clock."""
    return [dataclasses.replace(outcome, seconds=0.0, latency=None) for outcome in results.outcomes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Results:
    return done(tmp_path_factory.mktemp("whole") / "study")


# ---- what is measured


def test_each_method_has_a_row_within_the_budget_and_ours_one_that_is_exact(whole):
    assert [(each.method, each.budget) for each in whole.outcomes] == [
        ("implicit", None),
        ("implicit", HALF),
        ("li2017", HALF),
        ("random", HALF),
    ]
    assert all(whole.left(outcome) <= 0.5 for outcome in whole.outcomes if outcome.budget)


def test_removing_dead_channels_changes_no_prediction_and_removes_just_them(whole):
    exact = whole.outcomes[0]
    assert whole.dense.size.channels - exact.size.channels == 2
    assert exact.error == whole.dense.error
    assert exact.difference < 1e-5


def test_a_row_is_what_the_surgery_leaves_and_how_it_then_errs(whole):
    """Oracle: the same channels removed by hand, with BatchNorms measured on the training images, and tested."""
    model, data = network().eval(), images(60)
    example, _ = next(data.batches("test", 8))
    chosen = select_within_budget(model, example, score_channels("li2017", model, example), HALF)
    slimmed = remove_selected(model, example, chosen, images=data.sample(256))
    row = whole.outcomes[2]
    assert row.error == 1 - evaluate(slimmed.model, data).top1
    assert row.size.params == parameters(slimmed.model)
    assert row.size.macs == slimmed.plan.macs_after


def test_every_network_is_fine_tuned_and_the_last_and_the_best_error_are_reported(whole):
    for outcome in whole.outcomes:
        assert [point.iteration for point in outcome.course] == [3, 6]
        assert outcome.last == outcome.course[1]
        assert outcome.best.error == min(point.error for point in outcome.course)


def test_latency_is_measured_in_turns_with_the_dense_network(tmp_path, operators_read_once):
    results = done(tmp_path / "timed", methods=("li2017",), finetuning=None, seconds=0.02)
    (row,) = results.outcomes
    assert row.latency.names[0] == "dense"
    assert row.latency.runtime == "onnxruntime"
    assert len(row.latency.samples_ms[0]) == len(row.latency.samples_ms[1]) > 10
    assert row.speedup.low <= row.speedup.value <= row.speedup.high
    assert (tmp_path / "timed" / "networks" / "li2017-macs-0.5.onnx").exists()
    assert Results.from_dict(json.loads(json.dumps(results.to_dict()))) == results


def test_results_are_read_back_as_they_were_written(whole):
    assert Results.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole


@pytest.mark.parametrize("wrong", [{}, {"dense": 3}, {"dense": None, "finetuning": None}])
def test_something_else_is_not_read_as_results(wrong):
    with pytest.raises(UsageError, match="not the results of a comparison"):
        Results.from_dict(wrong)


# ---- interrupted


def rows(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every finished row: when it was written, and what is in it."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (folder / "cells").glob("*.json")}


def killed(folder: Path, words: str) -> None:
    """Work on the study in this process, and kill it when it does what these words say."""
    torch.set_num_threads(1)
    for moment in study(folder):
        if words in moment.doing:
            os.kill(os.getpid(), signal.SIGKILL)


def test_killed_in_a_fine_tuning_it_goes_on_and_repeats_nothing(tmp_path, whole):
    """A real process, ended by SIGKILL. Oracle: a study that was left alone."""
    folder = tmp_path / "killed"
    process = forkserver().Process(target=killed, args=(folder, "li2017, 0.5 of the macs: fine-tuning 4/6"))
    process.start()
    process.join(LONGEST_WAIT)
    assert process.exitcode == -signal.SIGKILL
    before = rows(folder)
    assert set(before) == {"implicit-exact.json", "implicit-macs-0.5.json"}
    work = study(folder)
    words = [moment.doing for moment in work]
    assert {name: rows(folder)[name] for name in before} == before
    assert not any(word.startswith("implicit") for word in words)
    assert "li2017, 0.5 of the macs: fine-tuning 4/6" in " ".join(words)
    assert "li2017, 0.5 of the macs: fine-tuning 3/6" not in " ".join(words)
    assert timeless(work.results()) == timeless(whole)


def test_what_is_finished_is_not_done_again_and_methods_may_be_added(tmp_path):
    folder = tmp_path / "grows"
    done(folder, methods=("li2017",))
    before = rows(folder)
    results = done(folder, methods=("li2017", "random"), budgets=(HALF, Budget("params", 0.6)))
    assert rows(folder)["li2017-macs-0.5.json"] == before["li2017-macs-0.5.json"]
    assert [(each.method, each.budget.unit) for each in results.outcomes] == [
        ("li2017", "macs"),
        ("random", "macs"),
        ("li2017", "params"),
        ("random", "params"),
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"finetuning": None}, "finetuning"), ({"seed": 1}, "seed"), ({"threshold": 1e-2}, "threshold")],
)
def test_rows_of_other_conditions_do_not_come_into_one_table(tmp_path, changes, named):
    folder = tmp_path / "begun"
    next(iter(study(folder)))
    with pytest.raises(UsageError, match=f"was begun with {named}"):
        next(iter(study(folder, **changes)))


def test_another_network_does_not_come_into_it_either(tmp_path):
    next(iter(study(tmp_path / "begun")))
    other = Study("tiny", network(widths=[8, 10]), images(60), settings(), tmp_path / "begun")
    with pytest.raises(UsageError, match="was begun with other weights"):
        next(iter(other))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"holds thesis\.tex and no comparison"):
        next(iter(study(tmp_path)))


def test_two_processes_do_not_work_on_one_study(tmp_path):
    working = iter(study(tmp_path / "one"))
    next(working)
    with pytest.raises(UsageError, match="another process is comparing"):
        next(iter(study(tmp_path / "one")))


# ---- trained with L1 before


SPARSE = sparsifying("basicnet", "noise", 8, 1e-2, batch_size=5)
BEFORE = {"methods": ("li2017", "liu2017"), "sparsifying": SPARSE, "finetuning": None}


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Results:
    return done(tmp_path_factory.mktemp("before") / "study", **BEFORE)


def test_liu2017_chooses_in_a_network_trained_with_l1_and_the_others_in_the_one_given(before, whole):
    """Oracle: the steps by hand."""
    data = images(60)
    training = Finetuning(network(), SPARSE, data, threads=1)
    list(training)
    model = training.model.eval()
    example, _ = next(data.batches("test", 8))
    slimmed = remove_selected(
        model, example, select_within_budget(model, example, score_channels("liu2017", model, example), HALF)
    )
    li2017, liu2017 = before.outcomes
    assert liu2017.error == 1 - evaluate(slimmed.model, data).top1
    assert liu2017.size.params == slimmed.plan.params_after
    assert liu2017.sparsified == Point(8, 1 - evaluate(model, data).top1)
    assert li2017.sparsified is None
    assert (li2017.error, li2017.size) == (whole.outcomes[2].error, whole.outcomes[2].size)
    assert Results.from_dict(json.loads(json.dumps(before.to_dict()))) == before


def test_the_training_with_l1_goes_on_where_it_was_and_is_done_once_for_all_budgets(before, tmp_path):
    folder = tmp_path / "stopped"
    for moment in study(folder, **BEFORE):
        if "L1 on γ 4/8" in moment.doing:
            break
    two = (HALF, Budget("macs", 0.7))
    work = study(folder, **BEFORE | {"budgets": two})
    words = [moment.doing for moment in work]
    assert next(word.split(",")[0] for word in words if "L1" in word).endswith("5/8")
    assert timeless(work.results())[:2] == timeless(before)
    assert not any("L1" in moment.doing for moment in study(folder, **BEFORE | {"budgets": two}))


@pytest.mark.parametrize("wrong", [{"methods": ("li2017",)}, {"sparsifying": TUNED}])
def test_training_with_l1_for_nobody_or_without_l1_is_refused(wrong):
    with pytest.raises(UsageError, match="training with L1 on γ is for liu2017"):
        settings(**BEFORE | wrong)


def test_plain_is_the_removal_of_the_papers(tmp_path):
    """Oracle: by hand, with no BatchNorm corrected."""
    model, data = network().eval(), images(60)
    example, _ = next(data.batches("test", 8))
    chosen = select_within_budget(model, example, score_channels("li2017", model, example), HALF)
    slimmed = remove_selected(model, example, chosen, recalibrate=False)
    results = done(tmp_path / "plain", methods=("li2017",), recalibrate=False, finetuning=None)
    assert results.outcomes[0].error == 1 - evaluate(slimmed.model, data).top1
    assert not results.recalibrated


def test_without_images_to_measure_on_batchnorms_get_an_estimate(tmp_path):
    """Oracle: by hand, with no image but the example."""
    model, data = network().eval(), images(60)
    example, _ = next(data.batches("test", 8))
    slimmed = remove_selected(
        model, example, select_within_budget(model, example, score_channels("li2017", model, example), HALF)
    )
    results = done(tmp_path / "estimated", methods=("li2017",), measure_on=0, finetuning=None)
    assert results.outcomes[0].error == 1 - evaluate(slimmed.model, data).top1
    assert results.recalibrated
    assert not results.measured_on


def test_weights_are_fitted_if_asked(tmp_path):
    """Oracle: by hand, on as many images."""
    model, data = network().eval(), images(60)
    example, _ = next(data.batches("test", 8))
    chosen = select_within_budget(model, example, score_channels("li2017", model, example), HALF)
    slimmed = remove_selected(model, example, chosen, images=data.sample(20), refit=True)
    results = done(tmp_path / "fitted", methods=("li2017",), measure_on=20, refit=True, finetuning=None)
    assert results.outcomes[0].error == 1 - evaluate(slimmed.model, data).top1
    assert results.refitted
    assert Results.from_dict(json.loads(json.dumps(results.to_dict()))) == results


# ---- wrong


@pytest.mark.parametrize("without", [{"recalibrate": False}, {"measure_on": 0}])
def test_weights_are_fitted_on_images(without):
    with pytest.raises(UsageError, match="fitted on images"):
        settings(refit=True, **without)


def test_an_unknown_method_is_refused_and_the_nearest_suggested():
    with pytest.raises(UsageError, match="did you mean random"):
        settings(methods=("radnom",))


def test_without_a_budget_only_ours_can_be_compared():
    assert [cell.key for cell in settings(methods=("implicit", "random"), budgets=()).cells()] == ["implicit-exact"]
    with pytest.raises(UsageError, match="give budgets"):
        settings(methods=("li2017",), budgets=())


def test_a_budget_that_cannot_be_met_says_the_smallest_before_anything_is_trained(tmp_path):
    work = study(tmp_path / "tight", budgets=(Budget("macs", 0.001),))
    with pytest.raises(UsageError, match="the smallest possible is 0"):
        list(work)
    assert work.results().outcomes == ()


@pytest.mark.parametrize("classes", [2, 3])
def test_data_with_other_classes_is_refused(tmp_path, classes):
    model = network(num_classes=5 - classes)
    with pytest.raises(DataError, match="classes"):
        Study("tiny", model, images(60, classes), settings(), tmp_path)


def test_results_before_there_are_any_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no results yet"):
        study(tmp_path / "new").results()
