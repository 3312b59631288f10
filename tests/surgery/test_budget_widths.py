"""Widths that are measured together with a budget: each candidate meets it, and a made-up clock chooses among them."""

import contextlib
import json
from collections.abc import Callable

import pytest
import slimnet_cli
import torch
from networks import lively
from test_width_search import blocks_of, costing
from wiring import widths

from slimnet.bundle.bundle import load, read_blueprint, verify_bundle
from slimnet.errors import UsageError
from slimnet.methods import Budget, remove_selected, score_channels, select_within_budget
from slimnet.methods.budget_widths import choose_rounding
from slimnet.models import build
from slimnet.surgery.plan import SurgeryPlan
from slimnet.width_search import WidthSearch

ARGS = {"widths": [24, 32], "pool_after": [1], "hidden": 16, "in_channels": 1}
IMAGES = torch.zeros(2, 1, 16, 16)


@pytest.fixture(scope="module")
def dense():
    torch.manual_seed(0)
    return lively(build("basicnet", ARGS)).eval()


def selecting(dense, left: float) -> Callable:
    ranking = score_channels("li2017", dense, IMAGES)
    return lambda multiple: select_within_budget(dense, IMAGES, ranking, Budget("macs", left), round_to=multiple)


@pytest.mark.parametrize("cost", [sum, blocks_of(8), blocks_of(32), lambda found: 100.0 - sum(found)])
def test_the_fastest_network_within_the_budget_is_taken(dense, cost):
    """Oracle: every multiple tried by hand, with the budget kept; also where the clock favours the dense network."""
    choose = selecting(dense, 0.6)
    by_hand = {}
    for multiple in (1, 4, 8, 16, 32):
        with contextlib.suppress(UsageError):
            each = remove_selected(dense, IMAGES, choose(multiple), round_to=multiple)
            by_hand[cost(widths(each.model)), each.plan.macs_after] = widths(each.model)
    found = choose_rounding(dense, IMAGES, choose, costing(cost))
    slimmed = remove_selected(dense, IMAGES, found.selection, round_to=found.round_to)
    assert len(by_hand) > 2
    assert widths(slimmed.model) == by_hand[min(by_hand)]
    assert slimmed.plan.macs_after <= 0.6 * slimmed.plan.macs_before
    assert slimmed.certificate.holds
    assert slimmed.certificate.plan_digest == slimmed.plan.digest
    assert slimmed.plan.rounding.endswith(" within the budget on onnxruntime")
    assert SurgeryPlan.from_json(slimmed.plan.to_json()) == slimmed.plan
    trials = slimmed.plan.trials
    assert (trials[0].rounding, trials[0].macs) == ("dense", slimmed.plan.macs_before)
    assert trials[0].median_ms == cost(widths(dense))


def test_a_multiple_with_which_the_budget_cannot_be_met_is_left_out(dense):
    """Without rounding 0.05 of the MACs can be left, with multiples of 32 nothing can be removed at all."""
    found = choose_rounding(dense, IMAGES, selecting(dense, 0.05), costing(blocks_of(32)))
    names = [each.rounding for each in found.round_to.trials]
    assert "none" in names
    assert "multiples of 32" not in names


def test_a_budget_that_no_multiple_meets_is_refused(dense):
    with pytest.raises(UsageError, match="the smallest possible is"):
        choose_rounding(dense, IMAGES, selecting(dense, 1e-6), costing(sum))


def test_the_command_takes_both_and_the_bundle_keeps_what_was_measured(dense, tmp_path, monkeypatch, capsys):
    """The clock of the command is made up as well; its runtime is the one that the latency is for."""
    torch.save(dense.state_dict(), tmp_path / "net.pt")
    asked = []

    def timer(named, inputs, auto: WidthSearch):
        asked.append(auto.runtime)
        return costing(blocks_of(8)).timer(named, inputs, auto)

    monkeypatch.setattr("slimnet.methods.budget_widths.timed", timer)
    network = [
        "--arch",
        "basicnet",
        "--arch-args",
        json.dumps(ARGS),
    ]
    line = ["slim", str(tmp_path / "net.pt"), *network, "--input-shape", "1,16,16", "--target-macs", "0.6"]
    assert slimnet_cli.run([*line, "--round", "auto:torch", "--method", "li2017", "-o", str(tmp_path / "half")]) == 0
    assert ", the fastest of " in capsys.readouterr().out
    plan = read_blueprint(tmp_path / "half").plan
    assert plan.macs_after <= 0.6 * plan.macs_before
    times = {each.rounding: each.median_ms for each in plan.trials[1:]}
    assert (
        times[plan.rounding.partition(",")[0]] == min(times.values()) == blocks_of(8)(widths(load(tmp_path / "half")))
    )
    assert asked == ["torch"]
    verify_bundle(tmp_path / "half")
    assert slimnet_cli.run([*line, "--round", "auto", "--dry-run"]) == 0
    assert "within the budget on onnxruntime" in capsys.readouterr().out
