"""How many of the removed channels were alive: counted by hand, where a method chooses dead and live ones."""

import json
import re

import pytest
import slimnet_cli
import torch
from torch import nn
from wiring import chain, norm, planes

from slimnet.graph.reasons import Cause
from slimnet.methods import Selection, plan_for, remove_selected
from slimnet.surgery.cut_history import cuts_of
from slimnet.surgery.kept_shares import DeadShares, Share
from slimnet.surgery.plan import SurgeryPlan

DEAD = [0, 1]
NETWORK = {"widths": [8, 12], "pool_after": [1], "hidden": 16, "in_channels": 1}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def half_dead() -> nn.Module:
    """Two of eight channels have γ = 0."""
    return chain(nn.Conv2d(2, 8, 3), norm(8, DEAD), nn.ReLU(), nn.Conv2d(8, 3, 1))


@pytest.mark.parametrize(
    ("chosen", "removed", "live"),
    [((), 2, 0), ((0, 1), 2, 0), ((5,), 3, 1), ((1, 5, 6), 4, 2)],
    ids=["none", "dead ones", "a live one", "dead and live ones"],
)
def test_only_chosen_channels_that_were_alive_count_as_live(chosen, removed, live):
    selection = Selection("mine", {"0": chosen}, 1e-3)
    for plan in (plan_for(half_dead(), planes(), selection), remove_selected(half_dead(), planes(), selection).plan):
        assert (plan.removed_channels, plan.live) == (removed, live)


def test_live_channels_that_stay_for_the_width_are_not_counted():
    """Of five chosen live ones 1 to 3 may go: widths are multiples of 4, so that 4 of 8 channels stay."""
    selection = Selection("mine", {"0": (2, 3, 4, 5, 6)}, 1e-3)
    plan = plan_for(half_dead(), planes(), selection, round_to=4)
    assert plan.removed_channels == 4
    kept = {channel for each in plan.kept for channel in each.channels}
    assert plan.live == len({2, 3, 4, 5, 6} - kept)
    assert f"4 channels removed: {4 - plan.live} dead, {plan.live} live; 3 are kept since" in str(plan.shares)


def test_channels_that_die_with_the_chosen_ones_were_alive():
    """A filter of the second layer reads only the chosen channel, so that its output is constant then."""
    model = chain(nn.Conv2d(2, 8, 3), norm(8, DEAD), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    with torch.no_grad():
        model[3].weight[2] = 0
        model[3].weight[2, 5] = 1
    plan = plan_for(model, planes(), Selection("mine", {"0": (5,)}, 1e-3))
    assert (plan.removed_channels, plan.live) == (4, 2)


def test_the_count_is_in_the_plan_and_its_history_and_plans_without_it_keep_their_digests():
    slimmed = remove_selected(half_dead(), planes(), Selection("mine", {"0": (4,)}, 1e-3))
    assert cuts_of(slimmed.model)[-1] == slimmed.plan == SurgeryPlan.from_json(slimmed.plan.to_json())
    assert slimmed.certificate.plan_digest == slimmed.plan.digest
    exact = plan_for(half_dead(), planes(), Selection("mine", {}, 1e-3))
    assert "live" not in json.loads(exact.to_json())


def test_live_channels_of_several_cuts_add_up():
    first = remove_selected(half_dead(), planes(), Selection("mine", {"0": (4,)}, 1e-3))
    second = remove_selected(first.model, planes(), Selection("mine", {"0": (0, 1)}, 1e-3))
    assert (second.plan.live, second.whole_plan.live, second.whole_plan.removed_channels) == (2, 3, 5)


def test_one_channel_is_said_in_the_singular():
    shares = DeadShares(1, (Share(Cause.TIME, 1),), live=1)
    assert str(shares) == "1 channel removed: 0 dead, 1 live; 1 is kept since its removal saves no time"
    assert not [word for cause in Cause for word in ("they", "their", "them") if word in cause.of(1).split()]
    assert "since they carry constants" in str(Share(Cause.CONSTANTS, 2))


def test_the_command_counts_dead_and_live_channels_apart(tmp_path, capsys):
    """Oracle: six γ that are zero in the checkpoint, and the widths of the plan."""
    from networks import lively

    from slimnet.models import build

    model = lively(build("basicnet", NETWORK))
    first = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        first.weight[:6], first.bias[:6] = 0, -0.1
    torch.save(model.state_dict(), tmp_path / "net.pt")
    command = ["slim", str(tmp_path / "net.pt"), "--arch", "basicnet", "--arch-args", json.dumps(NETWORK)]
    command += ["--input-shape", "1,16,16", "--target-macs", "0.15", "--round", "none", "--dry-run"]
    assert slimnet_cli.run([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    removed = sum(layer["channels_before"] - layer["channels_after"] for layer in document["layers"])
    assert document["shares"]["live"] == document["live"] == removed - 6 > 0
    assert slimnet_cli.run(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{removed} channels removed: 6 dead, {removed - 6} live" in shown
    assert re.search(rf"not exact: {removed - 6} live channels? (was|were) removed, chosen by implicit", shown)
