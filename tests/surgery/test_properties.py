"""Whatever the network: the slim one computes what the dense one does with those γ at zero that its plan relies on.

The oracle is that masked network, run by torch alone in double precision.
"""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from masking import THRESHOLD, BatchNorm, difference, masked, outputs
from networks import BETAS, RATES, RECIPES, Recipe, build, images
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

import slimnet
from slimnet.graph.channel_graph import SILENT
from slimnet.models.compensated_norm import CompensatedLayerNorm
from slimnet.surgery.plan import SurgeryPlan

EXACT = 1e-9
"""Relative to the largest output; double precision has 2e-16, and a dozen layers lie in between."""

quickly = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
thoroughly = settings(quickly, max_examples=3000)


def check_exact(recipe: Recipe, rate: float, beta: str) -> None:
    dense = build(recipe, rate, beta)
    before = copy.deepcopy(dense)
    state = torch.get_rng_state()
    slimmed = slimnet.slim(dense, images(recipe), THRESHOLD, tolerance=float("inf"))
    assert torch.equal(torch.get_rng_state(), state)
    check_same_module(dense, before)

    fresh = images(recipe, batch=2, seed=7)
    expected = outputs(masked(dense, slimmed.plan), fresh)
    assert difference(expected, outputs(slimmed.model, fresh)) < EXACT
    check_kept(dense, slimmed)
    check_scales(dense, slimmed)
    check_counts(slimmed, recipe)
    check_round_trip(dense, slimmed)
    check_again(slimmed, recipe, fresh)


def check_same_module(model: nn.Module, before: nn.Module) -> None:
    """Nothing of the dense network has changed: tensors bit by bit, modes, gradients."""
    left, right = model.state_dict(), before.state_dict()
    assert list(left) == list(right)
    assert all(torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert [repr(m) for m in model.modules()] == [repr(m) for m in before.modules()]
    assert all(p.grad is None for p in model.parameters())


def check_kept(dense: nn.Module, slimmed: slimnet.Slimmed) -> None:
    """Class, names, modes, dtypes and what is trained are the dense network's, but for compensated LayerNorms."""
    narrow = slimmed.model
    modules, slim_modules = dict(dense.named_modules()), dict(narrow.named_modules())
    assert modules.keys() == slim_modules.keys()
    compensated = {each.module for each in slimmed.plan.compensations}
    for path, module in modules.items():
        assert type(slim_modules[path]) is (CompensatedLayerNorm if path in compensated else type(module))
    assert all(slim_modules[path].training == module.training for path, module in modules.items())
    parameters = dict(narrow.named_parameters())
    assert all(name in parameters for name, _ in dense.named_parameters())
    assert all(parameters[name].requires_grad == p.requires_grad for name, p in dense.named_parameters())
    assert all(p.dtype == torch.float64 and p.is_leaf for p in narrow.parameters())
    shared = {t.untyped_storage().data_ptr() for t in dense.state_dict().values() if t.numel()}
    assert not any(t.untyped_storage().data_ptr() in shared for t in narrow.state_dict().values() if t.numel())


def check_counts(slimmed: slimnet.Slimmed, recipe: Recipe) -> None:
    """The plan's parameters are the slim network's, and its MACs are what torch's own counter sees in its layers.

    The counter counts products of activations as well, which are no layers.
    """
    assert slimmed.plan.params_after == sum(p.numel() for p in slimmed.model.parameters())
    check_dead(slimmed.plan)
    counter = FlopCounterMode(display=False)
    with counter:
        outputs(slimmed.model, images(recipe, batch=1))
    flops = counter.get_flop_counts()["Global"]
    assert slimmed.plan.macs_after == sum(count for op, count in flops.items() if op != torch.ops.aten.bmm) // 2
    assert slimmed.plan.macs_after <= slimmed.plan.macs_before


def check_dead(plan: SurgeryPlan) -> None:
    """Of every layer what is dead was removed or is kept, each channel for one reason, and nothing else is."""
    for layer in plan.layers:
        kept = [channel for each in plan.kept if each.layer == layer.name for channel in each.channels]
        assert len(set(kept)) == len(kept)
        assert layer.dead == layer.channels_before - layer.channels_after + len(kept)
    assert {each.layer for each in plan.kept} <= {layer.name for layer in plan.layers}


def check_round_trip(dense: nn.Module, slimmed: slimnet.Slimmed) -> None:
    """The plan survives JSON, and makes the bit-same network."""
    again = SurgeryPlan.from_json(slimmed.plan.to_json())
    assert again == slimmed.plan
    assert again.digest == slimmed.plan.digest
    check_same_module(slimnet.apply_plan(dense, again), slimmed.model)


def check_scales(dense: nn.Module, slimmed: slimnet.Slimmed) -> None:
    """A γ that stays is bit for bit what it was, except where the plan relies on a zero: there it hides what varies."""
    before, plan = dict(dense.named_parameters()), slimmed.plan
    kept = {cut.tensor: list(cut.keep) for cut in plan.cuts if cut.axis == 0}
    relied = {zeroed.tensor: set(zeroed.channels) for zeroed in plan.zeroed}
    for name, module in slimmed.model.named_modules():
        if isinstance(module, BatchNorm) and module.weight is not None:
            weight = f"{name}.weight" if name else "weight"
            places = kept.get(weight, range(len(before[weight])))
            for place, value in zip(places, module.weight.tolist(), strict=True):
                changes = place in relied.get(weight, ())
                assert abs(value) <= SILENT if changes else value == before[weight][place].item()


def check_again(slimmed: slimnet.Slimmed, recipe: Recipe, fresh: list[torch.Tensor]) -> None:
    """A slim network can be slimmed once more, and still computes the same; so can the module itself be copied."""
    again = copy.deepcopy(slimmed.model)
    twice = slimnet.slim(again, images(recipe), THRESHOLD, tolerance=float("inf"))
    assert difference(outputs(masked(again, twice.plan), fresh), outputs(twice.model, fresh)) < EXACT
    assert twice.plan.params_after <= slimmed.plan.params_after


def backward(model: nn.Module, recipe: Recipe) -> None:
    """Half a step of training."""
    model.train()
    sum(tensor.square().sum() for tensor in pytree.tree_leaves(model(*images(recipe)))).backward()


def check_trains(recipe: Recipe, rate: float, beta: str) -> None:
    """One step of training runs wherever it runs for the dense network, and reaches every parameter it reached."""
    dense = build(recipe, rate, beta)
    narrow = slimnet.slim(dense, images(recipe), THRESHOLD, tolerance=float("inf")).model
    try:
        backward(dense, recipe)
    except RuntimeError:  # a drawn in-place op changed what autograd still needed
        reject()
    backward(narrow, recipe)
    trained = {name for name, parameter in narrow.named_parameters() if parameter.grad is not None}
    assert {name for name, parameter in dense.named_parameters() if parameter.grad is not None} <= trained


@quickly
@given(recipe=RECIPES, rate=RATES, beta=BETAS)
def test_the_slim_network_computes_what_the_masked_one_does_and_nothing_else_changes(recipe, rate, beta):
    check_exact(recipe, rate, beta)


def test_a_constant_that_is_only_rounding_carries_no_other():
    """A BatchNorm takes a constant for its own mean; of what is left, 1e-15, one channel is kept for the shuffle."""
    recipe = Recipe(("shuffle", "concat", "one gate", "concat"), 572436, head="planes", inputs=2, returns="tuple")
    check_exact(recipe, 0.9, "random")


@settings(quickly, max_examples=15)
@given(recipe=RECIPES, rate=RATES, beta=BETAS)
def test_the_slim_network_can_go_on_training(recipe, rate, beta):
    check_trains(recipe, rate, beta)


@pytest.mark.sweep
@thoroughly
@given(recipe=RECIPES, rate=RATES, beta=BETAS)
def test_every_drawn_network_stays_exact(recipe, rate, beta):
    check_exact(recipe, rate, beta)


@pytest.mark.sweep
@settings(thoroughly, max_examples=500)
@given(recipe=RECIPES, rate=RATES, beta=BETAS)
def test_every_drawn_slim_network_trains(recipe, rate, beta):
    check_trains(recipe, rate, beta)
