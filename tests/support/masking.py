"""The oracle of the surgery: networks some of whose channels are dead, masked, and how far apart two outputs are."""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.utils import _pytree as pytree

from slimnet.surgery.plan import SurgeryPlan

BatchNorm = nn.modules.batchnorm._BatchNorm
THRESHOLD = 1e-3


def norms(model: nn.Module) -> Iterator[BatchNorm]:
    """Every BatchNorm, shared ones once."""
    return (module for module in model.modules() if isinstance(module, BatchNorm))


def kill(model: nn.Module, rate: float, beta: str) -> None:
    """Draw γ and β; dead channels have γ = 0 or |γ| < 1e-3, and β "zero", "negative" or "random"."""
    with torch.no_grad():
        for norm in norms(model):
            if norm.weight is None:
                continue
            dead = torch.rand(norm.num_features) < rate
            norm.weight.uniform_(0.5, 1.5).mul_(torch.randn(norm.num_features).sign())
            norm.weight[dead] = (torch.rand(int(dead.sum())).double() - 0.5).mul_(1.9e-3).relu_()
            norm.bias.normal_(0, 0.5)
            if beta == "zero":
                norm.bias[dead] = 0.0
            elif beta == "negative":
                norm.bias[dead] = -norm.bias[dead].abs()


def calibrate(model: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
    """Set every BatchNorm's statistics from one forward; no variance is so small that it magnifies rounding."""
    model.eval()
    for norm in norms(model):
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(*inputs)
        for norm in norms(model):
            norm.running_var.clamp_(min=0.1)
            norm.momentum = 0.1
    model.eval()


def masked(model: nn.Module, plan: SurgeryPlan | None = None) -> nn.Module:
    """A deep copy in evaluation mode with every γ below the threshold set to zero, or those that a plan relies on."""
    model = copy.deepcopy(model).eval()
    if plan is not None:
        tensors = dict(model.named_parameters())
        with torch.no_grad():
            for zeroed in plan.zeroed:
                gamma = tensors[zeroed.tensor][list(zeroed.channels)]
                assert (gamma.abs() < THRESHOLD).all(), "a plan relies on a γ that is not dead"
                tensors[zeroed.tensor][list(zeroed.channels)] = 0.0
        return model
    with torch.no_grad():
        for norm in norms(model):
            if norm.weight is not None:
                norm.weight[norm.weight.abs() < THRESHOLD] = 0.0
    return model


def outputs(model: nn.Module, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What the network returns in evaluation mode; afterwards every module is in its own mode again."""
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            return pytree.tree_leaves(model.eval()(*inputs))
    finally:
        for module, mode in modes.items():
            module.training = mode


def difference(expected: list[torch.Tensor], actual: list[torch.Tensor]) -> float:
    """The largest difference relative to the largest output."""
    assert [t.shape for t in expected] == [t.shape for t in actual]
    scale = max(t.abs().max().item() for t in expected)
    assert scale > 1e-3, "a network whose outputs vanish proves nothing"
    return max((a - b).abs().max().item() for a, b in zip(expected, actual, strict=True)) / scale
