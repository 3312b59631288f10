"""The report about networks that were measured side by side, against the measurements it is made of."""

import dataclasses

import numpy as np
import pytest
from pages import EVIL, Tags, check_ids, check_isolation, check_themes

from slimnet.benchmark import Comparison, Counts, Environment, Latency
from slimnet.benchmark.profile import LayerTimes, Profile
from slimnet.benchmark.results import Accuracies, Memory
from slimnet.report import Report, render
from slimnet.report.network import contenders
from slimnet.report.network import text as verdict
from slimnet.training import Accuracy

NAMES = ("dense", "exact", "half", EVIL)
SPEEDS = (1.0, 1.3, 1.9, 0.9)
WHERE = Environment("CPU", "AVX2", 2, 0.0, "Linux", "3.12", "2.9", "1.20", "0.1", "2026-01-01 00:00 UTC")


def samples(seed: int) -> tuple[tuple[float, ...], ...]:
    noise = np.random.default_rng(seed).lognormal(0, 0.01, (len(SPEEDS), 30))
    return tuple(tuple(5 / speed * row) for speed, row in zip(SPEEDS, noise, strict=True))


def several() -> Comparison:
    """Four networks with everything that can be measured."""
    sizes = zip(NAMES, (850_000, 770_000, 400_000, 400_000), (124e6, 110e6, 62e6, 62e6), strict=True)
    layers = (
        LayerTimes("conv1", "conv", (100, 90, 50, 50), samples(2)),
        LayerTimes("lost", "conv", (100, 90, None, None), (*samples(3)[:2], None, None)),
        LayerTimes("Relu", "other", (None,) * 4, samples(4)),
    )
    return Comparison(
        tuple(Counts(name, params, int(macs), {"onnx": 4 * params}) for name, params, macs in sizes),
        (Latency("torch", 1, 2, NAMES, samples(0)), Latency("onnxruntime", 8, 2, NAMES, samples(1))),
        WHERE,
        (Memory("cpu", 1, NAMES, (1_000_000, 900_000, 500_000, 500_000)),),
        (Accuracies("torch", "cifar10", NAMES, tuple(Accuracy(top, 1.0, 500) for top in (0.94, 0.94, 0.9, 0.5))),),
        (Profile("onnxruntime", 8, 2, NAMES, layers),),
    )


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return several()


@pytest.fixture(scope="module")
def report(comparison) -> Report:
    return Report("resnet56 on cifar10", None, None, WHERE, comparison=comparison)


@pytest.fixture(scope="module")
def page(report) -> str:
    return render(report)


def test_the_page_is_whole_and_alone(page):
    assert Tags(page).open == []
    check_ids(page)
    check_isolation(page)
    check_themes(page)


def test_every_network_has_its_row_and_no_name_is_markup(page, comparison):
    text = Tags(page).text.replace("\u202f", " ")
    assert "<script" not in page
    assert text.count("<script>alert") >= 5, "in both tables, and in the figures"
    for words in ("850 k", "124 M", "3.40 MB", "1.00 MB", "94.00 %", "50.00 %"):
        assert words in text


def test_speed_rows_are_the_measurements(comparison):
    """Oracle: numpy's medians, and the reduction of MACs by hand."""
    rows = contenders.speed_rows(comparison)
    assert [row.name for row in rows] == list(NAMES) * 2
    assert [row.interval is None for row in rows[:2]] == [True, False]
    times = comparison.latencies[1].samples_ms
    speedup = float(np.median(times[0]) / np.median(times[2]))
    assert rows[6].interval.value == pytest.approx(speedup)
    assert rows[6].efficiency.value == pytest.approx(speedup / 2)
    assert rows[4].label == "onnxruntime, batch 8"


def test_the_headline_names_the_fastest_only_where_it_is(comparison, report):
    assert verdict.headline(report).replace("\u202f", " ").startswith("half is 1.9")
    slow = dataclasses.replace(comparison, latencies=(Latency("torch", 1, 1, NAMES, (samples(0)[2],) * 4),))
    assert contenders.headline(slow) == "Nothing is measurably faster than dense"


def test_the_headline_claims_nothing_on_a_busy_machine(comparison):
    """One thread that worked half of the time."""
    times = comparison.latencies[-1].samples_ms
    halves = tuple(tuple(each / 2 for each in row) for row in times)
    busy = dataclasses.replace(comparison, latencies=(Latency("torch", 1, 1, NAMES, times, cpu_ms=halves),))
    assert contenders.headline(busy) == "Not measurable on this busy machine"
    assert "not measurable on this busy machine" in contenders.sentences(busy)[-1]
    assert all(row.cpu for row in contenders.speed_rows(busy))


def test_sentences_name_accuracies_beside_speeds(report):
    printed = " ".join(verdict.sentences(report)).replace("\u202f", " ")
    assert "4 networks" in printed
    assert "against dense at 94.00 % accuracy" in printed
    assert "× slower" in printed


def test_marks_are_what_was_measured(comparison):
    work, time = contenders.macs_marks(comparison), contenders.latency_marks(comparison)
    assert [mark.cost for mark in work] == pytest.approx([1, 110 / 124, 0.5, 0.5])
    assert [mark.error for mark in time] == pytest.approx([0.06, 0.06, 0.1, 0.5])
    assert time[0].interval is None
    assert all(mark.interval[0] <= mark.cost <= mark.interval[1] for mark in time[1:])


def test_what_was_not_measured_is_left_out(comparison):
    bare = dataclasses.replace(comparison, memories=(), accuracies=(), profiles=(), latencies=())
    page = render(Report("bare", None, None, WHERE, comparison=bare))
    assert Tags(page).open == []
    assert all(
        words not in page for words in ("Error against", "Where the time goes", 'id="speedups"', "certificate holds")
    )
    unknown = dataclasses.replace(bare, counts=tuple(dataclasses.replace(each, macs=None) for each in bare.counts))
    assert contenders.macs_marks(unknown) == []


def test_two_networks_without_a_plan_have_tiles(comparison):
    """Oracle: the counts."""
    pair = Report("pair", None, None, WHERE, comparison=comparison.pair(2))
    labels = [tile.label for tile in verdict.tiles(pair)]
    assert labels[:3] == ["Parameters", "Multiply-accumulates", "ONNX file"]
    assert "Accuracy" in labels
    page = render(pair)
    assert "certificate holds" not in Tags(page).text
    assert 'id="layertimes-numbers"' in page
