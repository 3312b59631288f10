"""What is said of dead channels that stay: how many, where, and why."""

import json
import re
from pathlib import Path

import pytest
import torch
from test_properties import check_dead
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from wiring import chain, norm, planes, reasons, slim, wired

import slimnet
from slimnet.graph.reasons import Kind
from slimnet.surgery.plan import SurgeryPlan

PAGE = Path(__file__).parents[2] / "docs" / "kept.md"


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_gates_that_nobody_needs_in_one_run_of_a_layer_only_are_alive():
    """A recurrent network's first state is 0, so that its reset gate does nothing then, but it does later."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        state = torch.zeros(1, 6, 6, 6, dtype=x.dtype)
        for image in x.split(1):
            seen = m.norm(m.first(image)).relu()
            reset, update = m.gates(torch.cat([seen, state], 1)).sigmoid().chunk(2, 1)
            new = m.new(torch.cat([seen, reset * state], 1)).tanh()
            state = (1 - update) * state + update * new
        return m.last(state)

    model = wired(
        forward,
        first=nn.Conv2d(2, 6, 3, padding=1),
        norm=norm(6, [0, 1, 4], -1.0),
        gates=nn.Conv2d(12, 12, 3, padding=1),
        new=nn.Conv2d(12, 6, 3, padding=1),
        last=nn.Conv2d(6, 3, 1),
    )
    plan = slim(model, planes()).plan
    check_dead(plan)
    assert {layer.name: layer.dead for layer in plan.layers if layer.dead} == {"first": 3}


def test_channels_that_are_dead_on_the_data_are_counted_like_those_that_are_dead_by_their_scale():
    """Those of `first` can go, those of `second` are added to others; neither has a BatchNorm."""
    model = wired(
        lambda m, x: m.last(m.second(y := m.first(x).relu()).relu() + y),
        first=nn.Conv2d(2, 8, 1),
        second=nn.Conv2d(8, 8, 1),
        last=nn.Conv2d(8, 3, 1),
    )
    with torch.no_grad():
        model.first.bias[:], model.second.bias[:] = 1e2, 1e4
        model.first.bias[[1, 2, 5]] = -1e3
        model.second.bias[[2, 3]] = -1e6
    x = planes()
    plan = slimnet.slim(model, x, criterion="activation", loader=[x]).plan
    check_dead(plan)
    assert {layer.name: layer.dead for layer in plan.layers} == {"first": 3, "second": 2, "last": 0}
    assert {each.layer: each.channels for each in plan.kept} == {"first": (1, 5), "second": (3,)}


def test_a_network_of_torch_modules_alone_is_described_by_their_paths():
    """No line of code is the network's own: neither Python's library nor whoever calls `slim`."""
    model = chain(nn.Conv2d(2, 8, 3), norm(8, [0, 1]), nn.LeakyReLU(), weight_norm(nn.Conv2d(8, 4, 3)))
    found = reasons(slim(model, planes()))
    assert found.endswith(" in 3.parametrizations.weight.0")
    assert ".py" not in found


def test_the_line_of_the_network_own_code_is_named():
    model = wired(
        lambda m, x: m.last(m.norm(m.first(x)).sort(1)[0]),
        first=nn.Conv2d(2, 8, 3),
        norm=norm(8, [0, 1]),
        last=nn.Conv2d(8, 3, 1),
    )
    assert "sort in the network itself (test_kept_page.py:" in reasons(slim(model, planes()))


# Reasons as data


def test_the_page_about_what_stays_names_every_kind_of_reason():
    rows = [line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.split(r", (?!or shared|reduced)", row)}
    for kind in Kind:
        assert named & {kind.sentence.format(place=place, detail="N") for place in ("X", "OP")}, kind


def test_a_reason_is_words_and_data_and_survives_json():
    model = wired(
        lambda m, x: m.last(m.norm(m.first(x)).sort(1)[0]),
        first=nn.Conv2d(2, 8, 3),
        norm=norm(8, [0, 1]),
        last=nn.Conv2d(8, 3, 1),
    )
    plan = slim(model, planes()).plan
    (kept,) = SurgeryPlan.from_json(plan.to_json()).kept
    assert (kept.layer, kept.channels) == ("first", (0, 1))
    assert (kept.kind, kept.op, kept.module) == ("neighbours", "sort", "")
    assert re.fullmatch(r"test_kept_page\.py:\d+", kept.line)
    assert kept.reason == f"mixed with its neighbours at sort in the network itself ({kept.line})"
    assert f"2 dead channels kept: {kept.reason}" in str(plan)


def test_a_reason_says_what_helps_and_where():
    model = chain(nn.Conv2d(2, 6, 3), norm(6, [0, 2, 5], 0.7), nn.ReLU(), nn.Conv2d(6, 3, 3, padding=1))
    (kept,) = slim(model, planes()).plan.kept
    assert (kept.kind, kept.module, kept.op, kept.line) == ("carrier", "3", "", "")
    assert kept.reason == "carrier of constants for 3"
    assert "ReLU" in kept.help


def test_reasons_of_plans_that_were_made_without_kinds_are_read_as_words():
    data = json.loads(
        slim(chain(nn.Conv2d(2, 4, 3), norm(4, [0, 1, 2, 3]), nn.Conv2d(4, 3, 3)), planes()).plan.to_json()
    )
    for kept in data["kept"]:
        for name in ("kind", "op", "module", "line"):
            del kept[name]
    kept = SurgeryPlan.from_json(json.dumps(data)).kept[0]
    assert (kept.reason, kept.kind, kept.help) == ("last channel of 0", "", "")


@pytest.mark.parametrize("split", [lambda y: y.split((4, 4), 1), lambda y: y.split(4, 1)])
def test_parts_of_fixed_sizes_are_the_reason_where_the_code_splits_by_numbers(split):
    """As many are dead in both halves: equal parts would let them go."""
    model = wired(
        lambda m, x: sum(m.last(part) for part in split(m.norm(m.first(x)).relu())),
        first=nn.Conv2d(2, 8, 3),
        norm=norm(8, [0, 1, 5, 6]),
        last=nn.Conv2d(4, 3, 1),
    )
    plan = slim(model, planes()).plan
    assert plan.removed_channels == 0
    assert {kept.kind for kept in plan.kept} == {"split"}
    assert "chunk" in plan.kept[0].help
