"""Optimisers with the paper's settings (section 3), with γ and β in separate parameter groups."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimnet.training.recipe.recipe import OptimiserName, Recipe

LR_SCALE = "lr_scale"
"""The key of a parameter group's factor on the learning rate."""

KEPT: Mapping[OptimiserName, frozenset[str]] = {
    "sgd": frozenset(["momentum_buffer"]),
    "adam": frozenset(["step", "exp_avg", "exp_avg_sq"]),
    "amsgrad": frozenset(["step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"]),
    "adamax": frozenset(["step", "exp_avg", "exp_inf"]),
    "adadelta": frozenset(["step", "square_avg", "acc_delta"]),
    "adagrad": frozenset(["step", "sum"]),
    "rmsprop": frozenset(["step", "square_avg"]),
}
"""The state of each of torch's optimisers for a parameter: scalars, or tensors of the parameter's shape."""


def make_optimiser(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters of `model`, with coupled L2: λθ is added to the gradient.

    This is `weight_decay` of torch's optimisers. The recipe's `weight_decay` and the other regularisers are applied by
    `Regularisers`, and so is L2 of γ if it depends on a channel's cost.
    """
    kinds = scales_and_shifts(model)
    others = [parameter for parameter in model.parameters() if id(parameter) not in kinds.members]
    scale_l2 = 0.0 if recipe.cost_aware else recipe.l2
    groups = [
        {"params": others, "weight_decay": recipe.l2, LR_SCALE: 1.0},
        {"params": kinds.scales, "weight_decay": scale_l2, LR_SCALE: recipe.gamma_lr_scale},
        {"params": kinds.shifts, "weight_decay": recipe.l2, LR_SCALE: recipe.beta_lr_scale},
    ]
    optimiser = _constructed(recipe, [group for group in groups if group["params"]])
    set_learning_rate(optimiser, recipe.lr)
    return optimiser


def _constructed(recipe: Recipe, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    optim, lr, eps, betas = torch.optim, recipe.lr, recipe.eps, recipe.betas
    # Adagrad's fused step does not support GPUs in older versions of torch (such as 2.11); the others do.
    on_cpu = all(parameter.device.type == "cpu" for group in groups for parameter in group["params"])
    match recipe.optimiser:
        case "sgd":
            return optim.SGD(groups, lr, recipe.momentum, nesterov=recipe.nesterov, fused=True)
        case "adam" | "amsgrad":
            return optim.Adam(groups, lr, betas, eps, amsgrad=recipe.optimiser == "amsgrad", fused=True)
        case "adamax":
            return optim.Adamax(groups, lr, betas, eps, foreach=True)
        case "adadelta":
            return optim.Adadelta(groups, lr, recipe.rho, eps, foreach=True)
        case "adagrad":
            return optim.Adagrad(groups, lr, eps=eps, fused=on_cpu, foreach=not on_cpu)
        case "rmsprop":
            return optim.RMSprop(groups, lr, alpha=recipe.rho, eps=eps, foreach=True)


def check_kept(name: OptimiserName, parameters: Sequence[nn.Parameter], state: Mapping[int, Any]) -> None:
    """Refuse data that is not the state of an optimiser for these parameters, by parameter number.

    Raises:
        ValueError: naming the parameter's number.
    """
    for number, kept in state.items():
        if type(number) is not int or not 0 <= number < len(parameters) or set(kept) != KEPT[name]:
            raise ValueError(f"what {name} keeps of parameter {number!r} is something else")
        shapes = [tuple(value.shape) for value in kept.values() if value is not None]
        if any(shape not in ((), tuple(parameters[number].shape)) for shape in shapes):
            raise ValueError(f"what {name} keeps of parameter {number} has another shape")


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate to `lr` times each group's own factor, from the next step on."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group[LR_SCALE]


class ScalesAndShifts:
    """The γ and the β of every BatchNorm, each parameter once, in module order."""

    def __init__(self) -> None:
        self.scales: list[nn.Parameter] = []
        self.shifts: list[nn.Parameter] = []
        self.members: set[int] = set()

    def add(self, kind: list[nn.Parameter], parameter: nn.Parameter | None) -> None:
        """Add a parameter, unless it is None or present."""
        if parameter is not None and id(parameter) not in self.members:
            self.members.add(id(parameter))
            kind.append(parameter)


def scales_and_shifts(model: nn.Module) -> ScalesAndShifts:
    """Find the γ and the β of a network."""
    found = ScalesAndShifts()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            found.add(found.scales, module.weight)
            found.add(found.shifts, module.bias)
    return found


@torch.no_grad()
def set_initial_values(recipe: Recipe, model: nn.Module) -> None:
    """Set the initial γ and β of the recipe, if it has any."""
    found = scales_and_shifts(model)
    for parameters, value in ((found.scales, recipe.gamma_init), (found.shifts, recipe.beta_init)):
        if value is not None:
            for parameter in parameters:
                parameter.fill_(value)
