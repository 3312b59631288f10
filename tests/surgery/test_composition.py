"""Plans compose: one plan does what two do one after the other.

The oracle is the two applied in turn, tensor by tensor in double precision.
"""

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from masking import kill
from networks import BETAS, RECIPES, Recipe, build, images
from test_slim import refused
from torch import nn

import slimnet
from slimnet.errors import PlanError
from slimnet.inspection import inspect
from slimnet.surgery.plan import SurgeryPlan

EXACT = 1e-12
quickly = settings(
    max_examples=5, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def two_plans(recipe: Recipe, beta: str, rates: tuple[float, float]) -> tuple[nn.Module, SurgeryPlan, SurgeryPlan]:
    """A network and two plans: more channels die in what the first one leaves."""
    dense = build(recipe, rates[0], beta)
    example = images(recipe)
    first = inspect(dense, example, round_to=2).plan
    between = slimnet.apply_plan(dense, first)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed + 1)
        kill(between, rates[1], beta)
    second = inspect(between, example).plan
    return dense, first, second


def check_composes(dense: nn.Module, first: SurgeryPlan, second: SurgeryPlan) -> None:
    between = slimnet.apply_plan(dense, first)
    expected = slimnet.apply_plan(between, second)
    try:
        plan = first.then(second)
    except PlanError as error:
        if "in one group only after the first" not in str(error):
            raise
        return
    check_same(slimnet.apply_plan(dense, plan), expected)
    assert SurgeryPlan.from_json(plan.to_json()) == plan
    assert plan.params_after == sum(p.numel() for p in expected.parameters())
    for layer in plan.layers:
        kept = [channel for each in plan.kept if each.layer == layer.name for channel in each.channels]
        assert len(set(kept)) == len(kept)
        assert all(channel < layer.channels_before for channel in kept)
        assert layer.dead == layer.channels_before - layer.channels_after + len(kept)


def check_same(model: nn.Module, expected: nn.Module) -> None:
    assert repr(model) == repr(expected)
    tensors, wanted = model.state_dict(), expected.state_dict()
    assert list(tensors) == list(wanted)
    for name, tensor in tensors.items():
        scale = max(1.0, wanted[name].abs().max().item())
        assert tensor.shape == wanted[name].shape
        assert (tensor - wanted[name]).abs().max().item() <= EXACT * scale, name


RATES = st.sampled_from([(0.2, 0.5), (0.5, 0.5), (0.9, 0.9), (0.5, 0.0), (0.0, 0.5)])


@quickly
@given(recipe=RECIPES, rates=RATES, beta=BETAS)
def test_one_plan_does_what_two_do(recipe, rates, beta):
    check_composes(*two_plans(recipe, beta, rates))


@pytest.mark.sweep
@settings(quickly, max_examples=2000)
@given(recipe=RECIPES, rates=RATES, beta=BETAS)
def test_one_plan_does_what_two_do_in_every_drawn_network(recipe, rates, beta):
    check_composes(*two_plans(recipe, beta, rates))


def depthwise(width: int, multiplier: int) -> nn.Module:
    """A depthwise layer between two others, each with a BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(2, width, 3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width * multiplier, 3, groups=width, bias=False),
        nn.BatchNorm2d(width * multiplier),
        nn.ReLU(),
        nn.Conv2d(width * multiplier, 3, 1),
    )


def with_dead(model: nn.Module, scale: str, channels: list[int]) -> nn.Module:
    """The network with some channels of a BatchNorm at zero, and in evaluation mode."""
    with torch.no_grad():
        for name in (scale, scale.replace("weight", "bias")):
            model.get_parameter(name)[channels] = 0.0
    return model.eval()


def plan_for(model: nn.Module) -> SurgeryPlan:
    return inspect(model, torch.randn(2, 2, 9, 9, dtype=torch.float64)).plan


def test_a_depthwise_layer_that_is_left_with_one_group_can_lose_outputs_of_it():
    """What the second plan cuts as an ordinary layer is depthwise in the dense network."""
    dense = with_dead(depthwise(4, 2).double(), "1.weight", [0, 1, 3])
    with_dead(dense, "4.weight", [0, 1, 2, 3, 6, 7])
    first = plan_for(dense)
    between = with_dead(slimnet.apply_plan(dense, first), "4.weight", [1])
    second = plan_for(between)
    assert [(layer.kind, layer.channels_after) for layer in second.layers][1] == ("conv", 1)
    composed = slimnet.apply_plan(dense, first.then(second))
    check_same(composed, slimnet.apply_plan(slimnet.apply_plan(dense, first), second))
    example = torch.randn(2, 2, 9, 9, dtype=torch.float64)
    assert torch.equal(composed(example), slimnet.apply_plan(between, second)(example))


def test_it_does_not_matter_which_two_of_three_are_joined_first():
    dense = with_dead(depthwise(8, 1).double(), "1.weight", [0, 4])
    plans = []
    for channels in ([1, 2], [0, 3], [1]):
        plans.append(plan_for(dense))
        dense = with_dead(slimnet.apply_plan(dense, plans[-1]), "4.weight", channels)
    first, second, third = plans
    assert first.then(second).then(third) == first.then(second.then(third))
    assert first.then(second.then(third)).removed_channels == 2 * (2 + 2 + 2)


def test_a_plan_that_does_not_follow_is_refused():
    dense = with_dead(depthwise(8, 1).double(), "1.weight", [0, 4])
    plan = plan_for(dense)
    text = refused(PlanError, 2, lambda: plan.then(plan))
    assert "the first leaves 0.weight with shape (6, 2, 3, 3), the second expects (8, 2, 3, 3)" in text
    other = dataclasses.replace(plan, network="ResNet")
    assert "for Sequential, the second for ResNet" in refused(PlanError, 2, lambda: plan.then(other))
    longer = plan_for(nn.Sequential(*slimnet.apply_plan(dense, plan), nn.BatchNorm2d(3)).double().eval())
    assert "does not know 7.weight" in refused(PlanError, 2, lambda: plan.then(longer))
    assert "does not know 7.weight" in refused(
        PlanError, 2, lambda: longer.then(plan_for(slimnet.apply_plan(dense, plan)))
    )


@pytest.mark.parametrize(
    ("recipe", "beta"),
    [
        (Recipe(("grouped", "twice", "halves"), 722307, dims=1), "zero"),
        (Recipe(("grouped", "summary"), 767943, inputs=2, returns="tuple"), "negative"),
    ],
    ids=["a layer under two names is cut under one", "groups that became one are cut as an ordinary layer"],
)
def test_what_the_second_plan_sees_as_another_kind_of_tensor_is_cut_alike(recipe, beta):
    check_composes(*two_plans(recipe, beta, (0.9, 0.9)))
