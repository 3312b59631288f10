"""Plans: read back as they were written, and refused where they fit no network, hostile ones above all."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_slim import images, network
from torch import nn
from wiring import refused

import slimnet
from slimnet.errors import PlanError
from slimnet.surgery.plan import SurgeryPlan


def test_a_plan_survives_json_and_can_be_read_aloud():
    plan = slimnet.slim(network(), images()).plan
    again = SurgeryPlan.from_json(plan.to_json())
    assert again == plan
    assert (again.digest, again.to_json()) == (plan.digest, plan.to_json())
    text = str(plan)
    assert text.startswith("surgery plan for Sequential; dead: |γ| < 0.001")
    assert f"{plan.removed_channels} of 19 channels removed" in text
    assert "0 (conv): 6 → " in text
    assert "carried by 1 kept channel of 6.weight" in text
    assert "folded into 3.bias" in text


@pytest.mark.parametrize(
    "other",
    [
        lambda: network(8),
        lambda: nn.Conv2d(2, 6, 3),
        lambda: nn.Sequential(),
        lambda: nn.Sequential(*network(), nn.BatchNorm1d(3)),
        lambda: nn.Sequential(network()),
    ],
)
def test_a_plan_for_another_network_is_refused(other):
    plan = slimnet.slim(network(), images()).plan
    assert "another network" in refused(PlanError, 2, lambda: slimnet.apply_plan(other(), plan))


def test_a_plan_is_refused_by_the_network_it_has_made():
    slimmed = slimnet.slim(network(), images())
    refused(PlanError, 2, lambda: slimnet.apply_plan(slimmed.model, slimmed.plan))


PLAN = json.loads(slimnet.slim(network(), images()).plan.to_json())
PARTS = ("cuts", "groups", "folds", "merges", "zeroed", "kept", "layers")
LISTS = [(part, key) for part in PARTS for key, value in PLAN[part][0].items() if isinstance(value, list)]
FIELDS = [(part, key) for part in PARTS for key in PLAN[part][0]]
CHANGED = [(part, key) for part, key in LISTS if part != "kept"]
"""The lists that surgery follows; `kept` is only shown."""


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """The JSON of the plan after `change` has had its way with it."""
    data = json.loads(json.dumps(PLAN))
    change(data)
    return json.dumps(data)


def attempt(text: str) -> None:
    """Read a plan and follow it."""
    slimnet.apply_plan(network(), SurgeryPlan.from_json(text))


def test_the_plan_that_the_hostile_ones_are_made_of_can_be_applied():
    attempt(json.dumps(PLAN))


def spoiled(part: str, key: str, values: list[Any]) -> str:
    return changed(lambda data: data[part][0].__setitem__(key, values))


@pytest.mark.parametrize(("part", "key"), [field for field in CHANGED if field[1] not in ("increments", "ratios")])
@pytest.mark.parametrize("index", [-1, 6, 10**6, 2**63, 10**30])
def test_an_index_outside_the_network_is_refused(part, key, index):
    values = [index, *PLAN[part][0][key][1:]]
    refused(PlanError, 2, lambda: attempt(spoiled(part, key, values)))


@pytest.mark.parametrize(("part", "key"), CHANGED)
def test_an_empty_list_is_refused(part, key):
    refused(PlanError, 2, lambda: attempt(spoiled(part, key, [])))


@pytest.mark.parametrize(
    ("part", "key"), [("cuts", "keep"), ("groups", "inputs"), ("groups", "outputs"), ("zeroed", "channels")]
)
def test_a_repeated_index_is_refused(part, key):
    values = PLAN[part][0][key]
    refused(PlanError, 2, lambda: attempt(spoiled(part, key, [values[0], *values[:-1]])))


@pytest.mark.parametrize(("part", "key"), CHANGED)
def test_a_list_that_is_too_long_is_refused(part, key):
    refused(PlanError, 2, lambda: attempt(spoiled(part, key, [*PLAN[part][0][key]] * 3)))


@pytest.mark.parametrize(("part", "key"), FIELDS)
@pytest.mark.parametrize("value", [None, True, {}, [[]], [None], ["0"], [True], {"a": 1}])
def test_a_field_of_another_type_is_refused(part, key, value):
    assert key in refused(PlanError, 2, lambda: attempt(spoiled(part, key, value)))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(("part", "key"), [("folds", "increments"), ("merges", "ratios")])
def test_a_number_that_is_none_is_refused(part, key, value):
    text = spoiled(part, key, ["X", *PLAN[part][0][key][1:]]).replace('"X"', value)
    refused(PlanError, 2, lambda: attempt(text))


ADDED_LATER = {None: {"rounding", "trials", "features", "attributes"}, "kept": {"kind", "op", "module", "line"}}
"""Fields that the first plans of this version did not have."""


@pytest.mark.parametrize("part", [None, *PARTS])
def test_an_unknown_field_and_a_missing_one_are_refused(part):
    def place(data: dict[str, Any]) -> dict[str, Any]:
        return data if part is None else data[part][0]

    assert "extra" in refused(PlanError, 2, lambda: attempt(changed(lambda data: place(data).update(extra=1))))
    for key in place(PLAN).keys() - ADDED_LATER.get(part, set()):
        refused(PlanError, 2, lambda key=key: attempt(changed(lambda data: place(data).pop(key))))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["cuts"][0].update(tensor="nobody"),
        lambda data: data["cuts"][0].update(axis=-1),
        lambda data: data["cuts"][0].update(axis=7),
        lambda data: data["cuts"].append({"tensor": "7.num_batches_tracked", "axis": 0, "keep": [0]}),
        lambda data: data["groups"][0].update(weight="nobody"),
        lambda data: data["groups"][0].update(groups_before=0),
        lambda data: data["groups"][0].update(groups_before=4),
        lambda data: data["groups"][0].update(groups_before=-2),
        lambda data: data["groups"][0].update(groups_after=0),
        lambda data: data["groups"][0].update(groups_after=10**9),
        lambda data: data["groups"][0].update(weight="1.weight"),
        lambda data: data["folds"][0].update(bias="nobody"),
        lambda data: data["folds"][0].update(bias="nobody.bias"),
        lambda data: data["folds"][0].update(bias="2.bias"),
        lambda data: data["folds"][0].update(bias="6.extra"),
        lambda data: data["folds"][0].update(bias=""),
        lambda data: data["merges"][0].update(weight="nobody"),
        lambda data: data["merges"][0].update(axis=2),
        lambda data: data["merges"][0].update(axis=-1),
        lambda data: data["merges"][0].update(weight="7.weight"),
        lambda data: data["merges"][0].update(ratios=[1.0] * 50),
        lambda data: data["zeroed"][0].update(tensor="nobody"),
        lambda data: data["paddings"].append({"module": "nobody", "before": 1, "after": 1}),
        lambda data: data["paddings"].append({"module": "0", "before": 1, "after": 1}),
        lambda data: data["paddings"].append({"module": "", "before": -1, "after": 1}),
        lambda data: data["shapes"].update({"0.weight": [6, 2, 3]}),
        lambda data: data["shapes"].update({"more": [1]}),
        lambda data: data["shapes"].pop("0.weight"),
        lambda data: data.update(version=2),
        lambda data: data.update(version="1"),
        lambda data: data.update(version=True),
        lambda data: data.update(shapes=[]),
        lambda data: data.update(cuts={}),
        lambda data: data.update(cuts=[1]),
        lambda data: data.update(threshold="1e-3"),
    ],
)
def test_a_plan_that_was_tampered_with_is_refused(change):
    refused(PlanError, 2, lambda: attempt(changed(change)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "null",
        "[]",
        "3",
        '"plan"',
        "{}",
        "[" * 100_000,
        '{"a":' * 100_000,
        json.dumps(PLAN)[:-1],
        json.dumps(PLAN).replace(":", ":" + "[" * 50_000, 1),
        "\x00",
        "1" * 10_000,
    ],
)
def test_text_that_is_no_plan_is_refused(text):
    refused(PlanError, 2, lambda: SurgeryPlan.from_json(text))


def test_a_refused_plan_leaves_the_network_alone():
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(PlanError):
        slimnet.apply_plan(model, SurgeryPlan.from_json(spoiled("folds", "increments", [1.0])))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model[0].out_channels == 6


def test_a_plan_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        slimnet.slim(network(), images()).plan.threshold = 1.0
