"""Regularisers that torch's optimisers do not have: the paper's weight decay, L1 on γ, L2 by cost, and decoupling."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from slimnet.training.optimisers import scales_and_shifts
from slimnet.training.recipe import Recipe

Parameters = Sequence[torch.Tensor]


class Regularisers:
    """What a recipe does to the parameters of `model` beside the optimiser's step.

    `costs` gives the relative cost of each channel of each γ by parameter name, `(C,)` with mean 1 over all of
    them, where the recipe's L2 depends on it.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, costs: Mapping[str, torch.Tensor] | None = None) -> None:
        self._recipe = recipe
        self._parameters = list(model.parameters())
        self._scales = scales_and_shifts(model).scales
        self._strengths: list[torch.Tensor] = []  # none where the optimiser's own L2 is all there is
        if recipe.cost_aware:
            names = {id(parameter): name for name, parameter in model.named_parameters()}
            self._strengths = [
                recipe.l2 * (costs or {})[names[id(scale)]].to(scale.device, scale.dtype) for scale in self._scales
            ]

    @torch.no_grad()
    def before_step(self, optimiser: torch.optim.Optimizer) -> None:
        """Add to the gradients, and shrink the parameters where weight decay is decoupled."""
        if self._recipe.l1_gamma:
            add_sign(self._scales, self._recipe.l1_gamma)
        for scale, strength in zip(self._scales, self._strengths, strict=False):
            if scale.grad is not None:
                scale.grad.addcmul_(scale, strength)
        if self._recipe.decoupled:
            for group in optimiser.param_groups:
                decay_weights(group["params"], group["lr"] * self._recipe.decoupled)

    def after_step(self, scale: float | torch.Tensor) -> None:
        """Decay the weights, with the schedule's scale."""
        if self._recipe.weight_decay:
            decay_weights(self._parameters, self._recipe.weight_decay * scale)


@torch.no_grad()
def add_sign(scales: Parameters, strength: float) -> None:
    """Network Slimming's subgradient of L1: λ·sign(γ) joins the gradient of every γ."""
    for scale in scales:
        if scale.grad is not None:
            scale.grad.add_(scale.sign(), alpha=strength)


@torch.no_grad()
def decay_weights(parameters: Parameters, amount: float | torch.Tensor) -> None:
    """Weight decay as the paper means it: θ ← (1 − amount)·θ in place, after the step (section 2.2).

    `amount` is λ·s with s the schedule's scale. AdamW multiplies by the learning rate as well, and does it before.
    """
    torch._foreach_mul_(list(parameters), 1 - amount)
