"""Optimisers, and the two regularisers as the paper defines them (section 2.2); torch has other names."""

from collections.abc import Iterable

import torch
from torch import nn

from slimnet.training.recipe import Recipe


def make_optimiser(recipe: Recipe, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam or SGD with the recipe's L2 coupled: λθ joins the gradient before any moment is taken of it.

    That is what torch calls `weight_decay`. The recipe's own `weight_decay` is not in here: `decay_weights`
    applies it after the step.
    """
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.l2, fused=True)
    return torch.optim.Adam(
        parameters, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, weight_decay=recipe.l2, fused=True
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Take `lr` in every parameter group from the next step on."""
    for group in optimiser.param_groups:
        group["lr"] = lr


@torch.no_grad()
def decay_weights(parameters: Iterable[torch.Tensor], amount: float) -> None:
    """Weight decay as the paper means it: θ ← (1 − amount)·θ in place, after the step.

    `amount` is λ·s with s the schedule's scale. AdamW multiplies by the learning rate as well; this does not.
    """
    for parameter in parameters:
        parameter.mul_(1 - amount)
