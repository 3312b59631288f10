"""Which channels may be set to zero for good: those that get no gradient then, whatever the other weights become.

The oracle is torch's own backward pass in training mode, with weights that are not those the set was found with.
"""

import pytest
import torch
from dying import batches, network
from hypothesis import HealthCheck, given, reject, settings
from masking import norms
from networks import RATES, RECIPES, Recipe, build, images
from torch import nn
from torch.utils import _pytree as pytree

import slimnet
from slimnet.modules.example_inputs import Inputs
from slimnet.planning.dead_channels import dead_by_scale
from slimnet.planning.make_plan import plan_from
from slimnet.planning.width_rounding import Rounding
from slimnet.shrinking import InvariantSet, find_invariant_set
from slimnet.tracing.trace import trace

quickly = settings(
    max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def invariant_set(model: nn.Module, example: object) -> InvariantSet:
    graph = trace(model, example)
    return find_invariant_set(graph, dead_by_scale(graph, 1e-3).scales, 1e-3, 1e-3)


def set_to_zero(model: nn.Module, found: InvariantSet) -> None:
    with torch.no_grad():
        for name, channels in found.channels.items():
            model.get_parameter(name)[list(channels)] = 0
            if name in found.shifts:
                model.get_parameter(found.shifts[name])[list(channels)] = 0


def other_weights(model: nn.Module, found: InvariantSet, seed: int) -> None:
    """Move every parameter somewhere else, apart from what is projected, and let nothing draw random numbers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype), alpha=0.3)
    set_to_zero(model, found)
    for module in model.train().modules():
        if "Dropout" in type(module).__name__:
            module.eval()


def loss_of(model: nn.Module, example: list[torch.Tensor]) -> torch.Tensor:
    outputs = pytree.tree_leaves(model(*example))
    loss = sum(((tensor - 0.3) ** 2).sum() for tensor in outputs)
    loss.backward()
    return loss.detach()


def check_trains_alike(recipe: Recipe, rate: float, beta: str) -> int:
    """The projected channels get no gradient, and without them every other parameter gets the same."""
    dense = build(recipe, rate, beta)
    example = images(recipe)
    found = invariant_set(dense, example)
    plan = plan_from(found.basis, dense, Inputs.of(example), retrace=True, rounding=Rounding())
    assert not plan.folds
    assert not plan.merges
    other_weights(dense, found, recipe.seed)
    narrow = slimnet.apply_plan(dense, plan)
    try:
        expected = loss_of(dense, images(recipe, batch=4, seed=3))
    except RuntimeError:  # a drawn in-place op changed what autograd still needed
        reject()
    loss = loss_of(narrow, images(recipe, batch=4, seed=3))
    assert abs(loss - expected) <= 1e-10 * expected
    for name, channels in found.channels.items():
        for own in (name, found.shifts.get(name)):
            grad = None if own is None else dense.get_parameter(own).grad
            assert grad is None or not grad[list(channels)].any(), name
    for model in (dense, narrow):
        as_gradients(model)
    hide_statistics(dense, found)
    expected_state = slimnet.apply_plan(dense, plan).state_dict()
    scale = max(tensor.nan_to_num().abs().max().item() for tensor in expected_state.values())
    for name, tensor in narrow.state_dict().items():
        seen = ~expected_state[name].isnan()
        assert (tensor - expected_state[name])[seen].abs().sum() <= 1e-9 * scale, name
    return plan.removed_channels


def as_gradients(model: nn.Module) -> None:
    """Put every parameter's gradient in its place, so that a plan can cut it."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)


def hide_statistics(model: nn.Module, found: InvariantSet) -> None:
    """Those of kept channels that are projected, or that nothing reads: what they normalise is used nowhere."""
    for norm in norms(model):
        if norm.weight is None and norm.running_mean is not None:
            norm.running_mean.fill_(torch.nan)
            norm.running_var.fill_(torch.nan)
    for name, step in found.basis.graph.norms:
        norm = model.get_submodule(name.rpartition(".")[0])
        unused = torch.from_numpy(~found.basis.needs.live[step.out])
        unused[list(found.channels.get(name, ()))] = True
        if isinstance(norm, nn.modules.batchnorm._NormBase) and norm.running_mean is not None:
            norm.running_mean[unused] = norm.running_var[unused] = torch.nan


@quickly
@given(recipe=RECIPES, rate=RATES)
def test_projected_channels_get_no_gradient_and_the_others_the_same_without_them(recipe, rate):
    check_trains_alike(recipe, rate, "negative")


@pytest.mark.sweep
@settings(quickly, max_examples=2000)
@given(recipe=RECIPES, rate=RATES)
def test_every_drawn_network_trains_alike(recipe, rate):
    check_trains_alike(recipe, rate, "negative")


class Pooled(nn.Module):
    """A mean or a maximum over all channels, which depends on how many there are."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x.mean(1, True) if self.how == "mean" else x.amax(1, True))


def layers(*behind: nn.Module) -> nn.Module:
    """A network of which channels 1 and 2 of the first BatchNorm are dead, and nothing else."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), *behind, nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.ReLU()
    ).double()
    with torch.no_grad():
        model[1].weight[1:3] = 1e-4
        model[1].bias[1:3] = -0.2
    return model


IMAGES = torch.zeros(2, 2, 9, 9, dtype=torch.float64)


def removed(model: nn.Module, found: InvariantSet) -> int:
    return plan_from(found.basis, model, Inputs.of(IMAGES), retrace=True, rounding=Rounding()).removed_channels


@pytest.mark.parametrize(
    "behind",
    [
        [nn.ReLU()],
        [nn.ReLU(inplace=True)],
        [nn.ReLU6()],
        [nn.Threshold(0.0, 0.0)],
        [nn.MaxPool2d(2), nn.ReLU()],
        [nn.Dropout(), nn.Hardtanh(0.0, 1.0)],
        [nn.LeakyReLU(), nn.ReLU()],
    ],
    ids=str,
)
def test_what_no_gradient_comes_through_at_0_goes(behind):
    model = layers(*behind)
    found = invariant_set(model, IMAGES)
    assert found.channels == {"1.weight": (1, 2)}
    assert found.shifts["1.weight"] == "1.bias"
    assert not found.stays
    assert removed(model, found) == 2


@pytest.mark.parametrize(
    ("behind", "reason"),
    [
        ([], "no ReLU or ReLU6 stands before 2"),
        ([nn.LeakyReLU()], "leaky_relu in 2"),
        ([nn.SiLU()], "silu in 2"),
        ([nn.GELU()], "gelu in 2"),
        ([nn.Hardswish()], "hardswish in 2"),
        ([nn.Hardtanh()], "hardtanh in 2"),
        ([nn.ELU()], "elu in 2"),
        ([nn.Sigmoid(), nn.ReLU()], "sigmoid in 2"),
    ],
    ids=str,
)
def test_what_lets_a_gradient_through_stays_with_the_reason(behind, reason):
    model = layers(*behind)
    found = invariant_set(model, IMAGES)
    assert not found.channels
    assert [(stays.scale, stays.channels) for stays in found.stays] == [("1.weight", (1, 2))]
    assert reason in str(found.stays[0])
    assert removed(model, found) == 0


def test_a_shift_that_is_too_large_stays():
    model = layers(nn.ReLU())
    with torch.no_grad():
        model[1].bias[1] = 0.01
    found = invariant_set(model, IMAGES)
    assert found.channels == {"1.weight": (2,)}
    assert [str(stays) for stays in found.stays] == ["1 dead of 1.weight stay: β is above 0.001"]


@pytest.mark.parametrize("how", ["mean", "max"])
def test_what_a_mean_or_a_maximum_over_channels_reads_is_not_removed(how):
    """A mean over fewer channels needs larger weights behind it, which train otherwise; a maximum has fewer ties."""
    model = layers(nn.ReLU(), Pooled(how))
    assert removed(model, invariant_set(model, IMAGES)) == 0


def residual(dead: dict[str, list[int]]) -> InvariantSet:
    model = network()
    with torch.no_grad():
        for path, channels in dead.items():
            model.get_submodule(path).weight[channels] = 0.0
            model.get_submodule(path).bias[channels] = 0.0
    return invariant_set(model, next(batches(1))[0])


def test_channels_of_a_sum_go_only_where_all_that_is_added_is_0():
    """The stem's own ReLU stops what comes back to it, also where the sum behind it is not 0."""
    found = residual({"stem.1": [1, 2], "body.4": [2, 3]})
    assert found.channels == {"stem.1.weight": (1, 2), "body.4.weight": (2,)}
    assert [(stays.scale, stays.channels) for stays in found.stays] == [("body.4.weight", (3,))]
    assert "joins it with channels that are not 0" in found.stays[0].reason


def test_a_branch_that_begins_at_zero_stays():
    """γ = β = 0 at the end of each branch, as torchvision can begin; the gradient that comes to it lets it grow."""
    found = residual({"body.4": list(range(6))})
    assert not found.channels
    assert "joins it" in found.stays[0].reason


def test_a_filter_that_is_zero_now_stays():
    """Its weights get a gradient; that it emits a constant is nothing to build on in training."""
    model = layers(nn.ReLU())
    with torch.no_grad():
        model[1].weight.fill_(1.0)
        model[0].weight[0] = 0.0
        model[3].weight[:, 3] = 0.0
    found = invariant_set(model, IMAGES)
    assert not found.channels
    assert removed(model, found) == 0
