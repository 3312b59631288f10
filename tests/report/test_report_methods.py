"""The page about methods of choosing channels, against the results it is made of."""

import dataclasses

import pytest
from pages import EVIL, Tags, check_ids, check_isolation, check_themes

from slimnet.benchmark import Environment, Latency
from slimnet.comparison import Dense, Outcome, Results, Size
from slimnet.methods import Budget
from slimnet.report import Report, render, render_methods
from slimnet.report.methods.text import final, headline, method_drawings, method_rows, sentences, tuning
from slimnet.training.finetune import Point, retraining

WHERE = Environment("CPU", "AVX2", 2, 0.0, "Linux", "3.12", "2.9", "1.20", "0.1", "2026-01-01 00:00 UTC")
HALF = Budget("macs", 0.5)


def outcome(method: str, error: float, tuned: float | None = None, budget: Budget | None = HALF) -> Outcome:
    size = Size(60, 600, 450) if budget else Size(95, 960, 900)
    samples = (tuple(2.0 + 0.01 * i for i in range(20)), tuple(1.0 + 0.01 * i for i in range(20)))
    course = () if tuned is None else (Point(5, 0.9), Point(10, tuned))
    return Outcome(method, budget, size, error, 1e-7, course, Latency("onnxruntime", 1, 1, ("dense", "slim"), samples))


@pytest.fixture(scope="module")
def results() -> Results:
    outcomes = (
        outcome("implicit", 0.06, budget=None),
        outcome("implicit", 0.3, 0.08),
        outcome(EVIL, 0.2, 0.1),
        outcome("random", 0.9, 0.4),
    )
    recipe = retraining("resnet56", "cifar10", 300)
    return Results("resnet56.th", "cifar10", 10_000, Dense(Size(100, 1000, 1000), 0.06), outcomes, recipe, WHERE)


@pytest.fixture(scope="module")
def page(results) -> str:
    return render_methods(results)


def test_the_page_is_whole_and_alone(page):
    assert Tags(page).open == []
    check_ids(page)
    check_isolation(page)
    check_themes(page)


def test_every_network_has_a_row_with_what_it_was_judged(results, page):
    rows = method_rows(results)
    assert [row.budget.replace("\u202f", " ") for row in rows] == ["exact", *["50 % of MACs"] * 3]
    assert [row.macs.replace("\u202f", " ") for row in rows] == ["10.0 %", *["55.0 %"] * 3]
    assert rows[1].channels == "40 of 100"
    text = Tags(page).text.replace("\u202f", " ")
    for words in ("8.00 %", "90.00 %", "× faster", "300 iterations"):
        assert words in text
    assert "<script" not in page


def test_the_verdict_ranks_by_the_error_in_the_end(results):
    assert headline(results) == "3 ways to make it smaller"
    printed = " ".join(sentences(results)).replace("\u202f", " ")
    assert "implicit has the lowest error (8.00 %) and random the highest (40.00 %)" in printed
    assert "which is exact, saves 10.0 % of its multiply-accumulates" in printed
    assert final(results.outcomes[1]) == 0.08


def test_marks_stand_at_the_share_of_macs_and_at_the_time(results):
    assert set(method_drawings(results)) == {"methods", "methodtimes"}
    untimed = dataclasses.replace(
        results, outcomes=tuple(dataclasses.replace(each, latency=None) for each in results.outcomes)
    )
    assert set(method_drawings(untimed)) == {"methods"}


def test_nothing_judged_and_nothing_trained_is_said(results):
    bare = dataclasses.replace(results, outcomes=(), finetuning=None)
    page = render_methods(bare)
    assert "No network has been evaluated yet" in page
    assert Tags(page).open == []
    assert tuning(bare) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recalibrated": False}, "As in the papers, BatchNorm statistics were not re-estimated."),
        ({}, "BatchNorm statistics were re-estimated without data."),
        ({"measured_on": 256}, "BatchNorm statistics were measured on 256 training images, without labels."),
        ({"measured_on": 256, "refitted": True}, "The remaining weights were fitted on 256 training images"),
    ],
)
def test_it_says_how_batchnorms_were_corrected(results, changes, words):
    assert words in " ".join(Tags(render_methods(dataclasses.replace(results, **changes))).text.split())


def test_the_report_about_a_network_has_them_as_a_section(results):
    page = render(Report("net", None, None, WHERE, methods=results))
    assert "Other methods" in page
    assert Tags(page).open == []
    assert "Other methods" not in render(Report("net", None, None, WHERE))
