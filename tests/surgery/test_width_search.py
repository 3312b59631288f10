"""Widths chosen by measurement, with a clock that is made up: each test says what a width costs."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from test_width_rounding import plain
from torch import nn
from wiring import EXACT, planes, widths

import slimnet
from slimnet.errors import UsageError
from slimnet.surgery.cut_history import cuts_of
from slimnet.surgery.plan import SurgeryPlan
from slimnet.width_search import WidthSearch, fewest_macs_of_the_fastest, quickest

ROUNDS = 20


def costing(cost: Callable[[list[int]], float]) -> WidthSearch:
    """Measurement without noise, by a formula over the widths."""

    def timer(named: Iterable[tuple[str, nn.Module]], inputs: object, auto: WidthSearch) -> list[list[float]]:
        return [[cost(widths(model))] * ROUNDS for _, model in named]

    return WidthSearch(timer=timer, threads=1)


def blocks_of(size: int) -> Callable[[list[int]], float]:
    """Hardware that works on whole blocks, and takes half as long again where the last is not full."""
    return lambda found: sum(-(-width // size) * size * (1.0 if width % size == 0 else 1.5) for width in found[:-1])


@pytest.mark.parametrize(
    ("cost", "chosen", "expected"),
    [
        (sum, "none", [7, 15, 3]),
        (blocks_of(4), "multiples of 4", [8, 16, 3]),
        (blocks_of(16), "multiples of 16", [16, 16, 3]),
        (lambda found: 100.0 - sum(found), "dense", [16, 24, 3]),
        (lambda found: 1.0, "none", [7, 15, 3]),
    ],
)
def test_the_fastest_widths_are_taken_and_of_equals_those_with_the_fewest_macs(cost, chosen, expected):
    auto = costing(cost)
    model, inputs = plain(), planes()
    expected_outputs = model(inputs)
    slimmed = slimnet.slim(model, inputs, round_to=auto)
    assert widths(slimmed.model) == expected
    assert slimmed.plan.rounding.startswith(f"{chosen}, the fastest of ")
    assert (slimmed.model(inputs) - expected_outputs).abs().max() < EXACT
    assert SurgeryPlan.from_json(slimmed.plan.to_json()) == slimmed.plan
    assert slimnet.slim(model, inputs, round_to=auto).plan == slimmed.plan == cuts_of(slimmed.model)[-1]


def test_the_plan_keeps_what_was_measured_of_every_candidate_that_differs():
    plan = slimnet.slim(plain(), planes(), round_to=costing(sum)).plan
    assert [(trial.rounding, trial.median_ms) for trial in plan.trials] == [
        ("dense", 43),
        ("none", 25),
        ("multiples of 4", 27),
        ("multiples of 16", 35),
    ]
    assert plan.trials[1].low == plan.trials[1].high == pytest.approx(43 / 25)
    assert "multiples of 4: 27 ms" in str(plan)


def test_where_nothing_can_go_the_dense_network_is_the_only_candidate():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)).double().eval()
    plan = slimnet.slim(model, planes(), round_to=WidthSearch(runtime="torch", seconds=0.01)).plan
    assert [trial.rounding for trial in plan.trials] == ["dense"]
    assert plan.removed_channels == 0


def test_a_difference_within_the_noise_does_not_buy_more_macs():
    """The second is 1 % slower in the median, but the two take turns at being faster."""
    noise = torch.randn(2, 200, generator=torch.Generator().manual_seed(0)).numpy()
    fast, slow = 10 + noise[0], 10.1 + noise[1]
    assert fewest_macs_of_the_fastest([200, 100], [fast, slow]) == 1
    assert fewest_macs_of_the_fastest([100, 200], [fast, slow]) == 0
    steady = [[10.0] * 50, [10.1] * 50]
    assert fewest_macs_of_the_fastest([200, 100], steady) == 0


@pytest.mark.parametrize(("slower", "chosen"), [(1.1, "dense"), (1.0, "none"), (0.9, "none")])
def test_what_is_not_surely_faster_meets_the_dense_network_once_more(slower, chosen):
    """The first time all take as long; the second time two are measured, and the dense network is the first."""
    asked: list[list[str]] = []
    reported: list[tuple[int, int, str]] = []

    def timer(named: Iterable[tuple[str, nn.Module]], inputs: object, auto: WidthSearch) -> list[list[float]]:
        asked.append([name for name, _ in named])
        return [[1.0] * ROUNDS for _ in asked[0]] if len(asked) == 1 else [[1.0] * ROUNDS, [slower] * ROUNDS]

    plan = slimnet.slim(
        plain(), planes(), round_to=WidthSearch(timer=timer, progress=lambda *each: reported.append(each))
    ).plan
    assert reported[-1] == (6, 6, "none, once more")
    assert asked[1:] == [["dense", "none"]]
    assert plan.rounding == f"{chosen}, the fastest of 4 on onnxruntime"
    assert (plan.removed_channels == 0) == (chosen == "dense")
    assert (plan.trials[-1].rounding, plan.trials[-1].median_ms) == ("none, once more", slower)


def test_what_is_surely_faster_is_measured_once():
    auto, asked = costing(sum), []

    def timer(*given: object) -> list[list[float]]:
        asked.append(given)
        return auto.timer(*given)

    slimnet.slim(plain(), planes(), round_to=WidthSearch(timer=timer))
    assert len(asked) == 1


def test_a_busy_machine_does_not_make_the_slower_network_the_faster_one():
    """Oracle: the second takes a fifth longer, and two rounds of three are interrupted for ten times as long."""
    generator = np.random.default_rng(0)
    interrupted = 30 * generator.random((2, 150)) * (generator.random((2, 150)) < 0.67)
    samples = np.array([[2.5], [3.0]]) + interrupted
    first, second = quickest(samples.tolist())
    assert len(first) == len(second) == 11
    assert fewest_macs_of_the_fastest([200, 100], [first, second]) == 0
    assert np.median(second) / np.median(first) == pytest.approx(1.2, rel=0.05)


def test_few_rounds_are_all_kept():
    assert quickest([[3.0, 1.0, 2.0]]) == [[3.0, 1.0, 2.0]]


def test_progress_names_every_candidate():
    reported: list[tuple[int, int, str]] = []
    auto = costing(sum)
    slimnet.slim(
        plain(), planes(), round_to=WidthSearch(timer=auto.timer, progress=lambda *each: reported.append(each))
    )
    assert [number for number, _, _ in reported] == [1, 2, 3, 4, 5, 6]
    assert {total for _, total, _ in reported} == {6}
    assert reported[0][2] == "dense"


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_the_clock_of_this_machine_measures_too(runtime):
    model = plain().float()
    slimmed = slimnet.slim(model, planes().float(), round_to=WidthSearch(runtime=runtime, threads=1, seconds=0.02))
    assert {trial.runtime for trial in slimmed.plan.trials} == {runtime}
    assert all(trial.median_ms > 0 for trial in slimmed.plan.trials)
    assert slimmed.certificate.holds


def test_a_runtime_that_there_is_not_is_refused():
    with pytest.raises(UsageError, match="did you mean onnxruntime"):
        slimnet.slim(plain(), planes(), round_to=WidthSearch(runtime="onnxruntim"))
    with pytest.raises(UsageError, match="round_to is 'quick'"):
        slimnet.slim(plain(), planes(), round_to="quick")
