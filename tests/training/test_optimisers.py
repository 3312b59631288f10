"""Every optimiser and regulariser against its recursion, written out in plain Python on one scalar."""

import math
from collections.abc import Callable

import pytest
import torch
from runs import finished, images, recipe
from torch import nn

from slimnet.training import Recipe, train
from slimnet.training.recipe.optimisers import make_optimiser, scales_and_shifts, set_initial_values, set_learning_rate
from slimnet.training.recipe.regularisers import Regularisers, decay_weights

GRADIENTS = (1.0, -3.0, 0.25, 0.5, -0.125)
DROP = 3


class Scalar(nn.Module):
    """One weight, and a BatchNorm with one γ and one β, all of which begin at 2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
        self.norm = nn.BatchNorm1d(1, dtype=torch.float64)
        nn.init.constant_(self.norm.weight, 2.0)
        nn.init.constant_(self.norm.bias, 2.0)

    @property
    def values(self) -> list[float]:
        """Weight, γ and β."""
        return [parameter.item() for parameter in (self.weight, self.norm.weight, self.norm.bias)]


def trained(chosen: Recipe, costs: dict[str, torch.Tensor] | None = None) -> list[list[float]]:
    """Weight, γ and β after each of five steps in which all three have the same gradients."""
    model = Scalar()
    optimiser, regularisers = make_optimiser(chosen, model), Regularisers(chosen, model, costs)
    path = []
    for iteration, gradient in enumerate(GRADIENTS):
        scale = chosen.schedule_scale(iteration)
        set_learning_rate(optimiser, chosen.lr * scale)
        for parameter in model.parameters():
            parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        regularisers.before_step(optimiser)
        optimiser.step()
        regularisers.after_step(scale)
        path.append(model.values)
    return path


Recursion = Callable[[Recipe, float, int, dict[str, float]], float]
"""What is subtracted from θ, times the learning rate, for a gradient at step t = 1, 2, ..., with a state."""


def sgd(chosen: Recipe, g: float, t: int, state: dict[str, float]) -> float:
    velocity = state["v"] = chosen.momentum * state.get("v", 0.0) + g
    return g + chosen.momentum * velocity if chosen.nesterov else velocity


def moments(chosen: Recipe, g: float, state: dict[str, float]) -> tuple[float, float]:
    b1, b2 = chosen.betas
    state["m"] = b1 * state.get("m", 0.0) + (1 - b1) * g
    state["v"] = b2 * state.get("v", 0.0) + (1 - b2) * g * g
    return state["m"], state["v"]


def adam(chosen: Recipe, g: float, t: int, state: dict[str, float]) -> float:
    m, v = moments(chosen, g, state)
    return m / (1 - chosen.betas[0] ** t) / (math.sqrt(v / (1 - chosen.betas[1] ** t)) + chosen.eps)


def amsgrad(chosen: Recipe, g: float, t: int, state: dict[str, float]) -> float:
    m, v = moments(chosen, g, state)
    top = state["top"] = max(state.get("top", 0.0), v)
    return m / (1 - chosen.betas[0] ** t) / (math.sqrt(top / (1 - chosen.betas[1] ** t)) + chosen.eps)


def adamax(chosen: Recipe, g: float, t: int, state: dict[str, float]) -> float:
    b1, b2 = chosen.betas
    state["m"] = b1 * state.get("m", 0.0) + (1 - b1) * g
    state["u"] = max(b2 * state.get("u", 0.0), abs(g) + chosen.eps)
    return state["m"] / (1 - b1**t) / state["u"]


def adadelta(chosen: Recipe, g: float, t: int, state: dict[str, float]) -> float:
    rho, eps = chosen.rho, chosen.eps
    state["g"] = rho * state.get("g", 0.0) + (1 - rho) * g * g
    step = math.sqrt(state.get("d", 0.0) + eps) / math.sqrt(state["g"] + eps) * g
    state["d"] = rho * state.get("d", 0.0) + (1 - rho) * step * step
    return step


def adagrad(chosen: Recipe, g: float, t: int, state: dict[str, float]) -> float:
    state["g"] = state.get("g", 0.0) + g * g
    return g / (math.sqrt(state["g"]) + chosen.eps)


def rmsprop(chosen: Recipe, g: float, t: int, state: dict[str, float]) -> float:
    state["g"] = chosen.rho * state.get("g", 0.0) + (1 - chosen.rho) * g * g
    return g / (math.sqrt(state["g"]) + chosen.eps)


STEPS: dict[str, Recursion] = {each.__name__: each for each in (sgd, adam, amsgrad, adamax, adadelta, adagrad, rmsprop)}


def by_hand(chosen: Recipe, *, l2: float | None = None, lr_scale: float = 1.0, l1: float = 0.0) -> list[float]:
    """The same path of one scalar, in Python's own floats."""
    theta, state, path = 2.0, {}, []
    for t, gradient in enumerate(GRADIENTS, start=1):
        scale = chosen.drop_factor if chosen.drops and t > chosen.drops[0] else 1.0
        lr = chosen.lr * scale * lr_scale
        g = gradient + (chosen.l2 if l2 is None else l2) * theta + l1 * math.copysign(1, theta)
        theta *= 1 - lr * chosen.decoupled
        theta -= lr * STEPS[chosen.optimiser](chosen, g, t, state)
        theta *= 1 - scale * chosen.weight_decay
        path.append(theta)
    return path


@pytest.mark.parametrize("penalty", [{}, {"l2": 0.5}, {"weight_decay": 0.25}, {"decoupled": 0.5}], ids=str)
@pytest.mark.parametrize("optimiser", STEPS)
def test_every_optimiser_follows_its_recursion_with_every_regulariser(optimiser, penalty):
    """L2 joins the gradient, decoupled decay goes by lr, the paper's decay by the schedule alone; all see the drop."""
    chosen = recipe(optimiser=optimiser, lr=0.05, eps=1e-3, drops=(DROP,), **penalty)
    expected = by_hand(chosen)
    assert trained(chosen) == [pytest.approx([value] * 3, rel=1e-9) for value in expected]


@pytest.mark.parametrize("optimiser", STEPS)
def test_the_fused_optimiser_equals_the_loop_over_parameters(optimiser):
    """Oracle: torch's own one-by-one implementation, in float32 over tensors of many shapes."""
    chosen = recipe(optimiser=optimiser, l2=0.1, drops=(DROP,))
    first, second = (nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(17, 1)) for _ in range(2))
    second.load_state_dict(first.state_dict())
    both = make_optimiser(chosen, first), make_optimiser(chosen, second)
    for group in both[1].param_groups:
        group |= {"foreach": False} | ({"fused": False} if "fused" in group else {})
    for iteration in range(2 * DROP):
        for pair in zip(first.parameters(), second.parameters(), strict=True):
            gradient = torch.randn(pair[0].shape, generator=torch.Generator().manual_seed(iteration))
            for parameter in pair:
                parameter.grad = gradient.clone()
        for each in both:
            set_learning_rate(each, chosen.lr * chosen.schedule_scale(iteration))
            each.step()
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=1e-5, atol=1e-6)


def test_nesterovs_momentum_looks_ahead():
    chosen = recipe(optimiser="sgd", lr=0.05, nesterov=True, l2=0.1)
    assert [weight for weight, *_ in trained(chosen)] == pytest.approx(by_hand(chosen), rel=1e-12)


def test_scales_and_shifts_have_learning_rates_of_their_own():
    chosen = recipe(lr=0.05, gamma_lr_scale=0.1, beta_lr_scale=3.0, l2=0.5, drops=(DROP,))
    weights, gammas, betas = zip(*trained(chosen), strict=True)
    assert weights == pytest.approx(by_hand(chosen), rel=1e-12)
    assert gammas == pytest.approx(by_hand(chosen, lr_scale=0.1), rel=1e-12)
    assert betas == pytest.approx(by_hand(chosen, lr_scale=3.0), rel=1e-12)


def test_l1_pulls_every_gamma_towards_zero_and_nothing_else():
    chosen = recipe(optimiser="sgd", lr=0.05, l1_gamma=0.5)
    weights, gammas, betas = zip(*trained(chosen), strict=True)
    assert gammas == pytest.approx(by_hand(chosen, l1=0.5), rel=1e-12)
    assert weights == betas == pytest.approx(by_hand(chosen), rel=1e-12)


def test_l2_by_cost_scales_with_the_cost_of_the_channel():
    chosen = recipe(lr=0.05, l2=0.5, cost_aware="macs")
    weights, gammas, betas = zip(*trained(chosen, {"norm.weight": torch.tensor([3.0])}), strict=True)
    assert gammas == pytest.approx(by_hand(chosen, l2=1.5), rel=1e-12)
    assert weights == betas == pytest.approx(by_hand(chosen), rel=1e-12)


def test_a_parameter_without_a_gradient_is_left_alone():
    """An auxiliary classifier's γ while it does not run."""
    chosen = recipe(lr=0.05, l1_gamma=0.5, l2=0.5, cost_aware="params")
    model = Scalar()
    optimiser = make_optimiser(chosen, model)
    Regularisers(chosen, model, {"norm.weight": torch.ones(1)}).before_step(optimiser)
    optimiser.step()
    assert model.values == [2.0, 2.0, 2.0]


def test_gamma_and_beta_begin_where_the_recipe_says():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.GroupNorm(1, 3), nn.BatchNorm1d(3, affine=False))
    bias = model[0].bias.detach().clone()
    set_initial_values(recipe(gamma_init=0.5, beta_init=-1.0), model)
    assert model[1].weight.tolist() == [0.5] * 3
    assert model[1].bias.tolist() == [-1.0] * 3
    assert model[2].weight.tolist() == [1.0] * 3
    assert torch.equal(model[0].bias, bias)


def test_a_shared_gamma_is_found_once():
    first, second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    second.weight = first.weight
    found = scales_and_shifts(nn.Sequential(first, second))
    assert [len(found.scales), len(found.shifts)] == [1, 2]


def test_weight_decay_shrinks_by_its_own_amount():
    theta = torch.tensor([2.0, -4.0])
    decay_weights([theta], 0.25)
    assert theta.tolist() == [1.5, -3.0]


@pytest.mark.parametrize("lr", [1e-30, 1e-25])
def test_weight_decay_follows_the_schedule_and_not_the_learning_rate(lr):
    """With a learning rate of nothing only the decay is left: θ₀ · 0.99² · 0.999³ for every parameter."""
    run = train(recipe(iterations=5, drops=(2,), lr=lr, weight_decay=0.01), images())
    before = {name: parameter.detach().clone() for name, parameter in run.model.named_parameters()}
    finished(run)
    for name, parameter in run.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] * (0.99**2 * 0.999**3))


@pytest.mark.parametrize(("ratio", "vanishes"), [(36, True), (40, False)])
def test_what_only_l2_moves_vanishes_below_the_bound_that_eps_sets(ratio, vanishes):
    """The recipe's note on eps: with lr·λ/eps below 38 a dead γ goes to nothing, above it it jitters."""
    model = Scalar()
    optimiser = make_optimiser(recipe(lr=1e-2, l2=1e-2, eps=1e-4 / ratio), model)
    gamma = model.norm.weight
    gamma.grad = torch.zeros_like(gamma)
    last = []
    for _ in range(6000):
        optimiser.step()
        last.append(abs(gamma.item()))
    assert (max(last[-200:]) < 1e-12) == vanishes
