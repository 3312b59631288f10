"""Regularisers that torch's optimisers do not have: the paper's weight decay, L1 on γ, L2 by cost, and decoupling."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from slimnet.errors import UsageError
from slimnet.shrinking.optimizer_state import TensorCutter
from slimnet.surgery.plan import SurgeryPlan
from slimnet.training.recipe.optimisers import scales_and_shifts
from slimnet.training.recipe.recipe import Recipe

Parameters = Sequence[torch.Tensor]


class Regularisers:
    """The regularisers that a recipe applies to the parameters of `model` besides the optimiser's step; stateless.

    `costs` are the relative costs of each channel of each γ by parameter name, `(C,)` with mean 1 over all of them, for
    a cost-aware recipe: see `channel_cost.relative_costs`. `model` is the network itself, not a wrapper.

    Raises:
        UsageError: the recipe is cost-aware and there are no costs.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, costs: Mapping[str, torch.Tensor] | None = None) -> None:
        self._recipe = recipe
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._scales = [scale for scale in scales_and_shifts(model).scales if scale.requires_grad]
        # Each γ with its L2 per channel, (C,); empty if the optimiser's L2 applies to all.
        self._strengths: list[tuple[nn.Parameter, torch.Tensor]] = []
        self._names: dict[int, str] = {id(parameter): name for name, parameter in model.named_parameters()}
        if recipe.cost_aware:
            if costs is None:
                raise UsageError("a cost-aware recipe needs costs=, what each channel costs; see relative_costs")
            names = self._names
            # A γ that the forward never reads has no cost, and no gradient either.
            priced = [(scale, costs[names[id(scale)]]) for scale in self._scales if names[id(scale)] in costs]
            self._strengths = [(scale, (recipe.l2 * cost).to(scale.device, scale.dtype)) for scale, cost in priced]

    @torch.no_grad()
    def before_step(self, optimiser: torch.optim.Optimizer) -> None:
        """Apply decoupled weight decay, and add the other regularisers to the gradients."""
        if self._recipe.decoupled:
            for group in optimiser.param_groups:
                trained = [parameter for parameter in group["params"] if parameter.requires_grad]
                decay_weights(trained, group["lr"] * self._recipe.decoupled)
        if self._recipe.l1_gamma:
            add_sign(self._scales, self._recipe.l1_gamma)
        for scale, strength in self._strengths:
            if scale.grad is not None:
                scale.grad.addcmul_(scale, strength)

    def cut(self, plan: SurgeryPlan) -> None:
        """Adapt to a cut of the network: each remaining channel keeps its cost."""
        cutter = TensorCutter(plan)
        self._strengths = [(scale, cutter.cut(self._names[id(scale)], cost)) for scale, cost in self._strengths]

    def after_step(self, scale: float | torch.Tensor) -> None:
        """Apply weight decay, with the schedule's factor `scale`."""
        if self._recipe.weight_decay:
            decay_weights(self._parameters, self._recipe.weight_decay * scale)


@torch.no_grad()
def add_sign(scales: Parameters, strength: float) -> None:
    """Network Slimming's subgradient of L1: add λ·sign(γ) to the gradient of every γ."""
    for scale in scales:
        if scale.grad is not None:
            scale.grad.add_(scale.sign(), alpha=strength)


@torch.no_grad()
def decay_weights(parameters: Parameters, amount: float | torch.Tensor) -> None:
    """Weight decay as in the paper: θ ← (1 − amount)·θ in place, after the step (section 2.2).

    `amount` is λ·s, where s is the schedule's factor. AdamW also multiplies by the learning rate, before the step.
    """
    if parameters:
        torch._foreach_mul_(list(parameters), 1 - amount)
