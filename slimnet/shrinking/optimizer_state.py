"""What each optimiser keeps of a channel: which of them leave a projected channel at zero, and what a cut carries over.

A projected channel has γ = β = 0 and gets the gradient 0. Its optimiser must then take the step 0. The second column
says why it does once what it keeps of γ and β is zero; the first, what a cut carries over of every other channel.

| optimiser        | kept for each element, cut like its parameter        | step at gradient 0 and state 0            |
|------------------|------------------------------------------------------|-------------------------------------------|
| SGD              | momentum_buffer                                      | lr · (μ · 0 + 0), also with Nesterov      |
| Adam, AdamW      | exp_avg, exp_avg_sq                                  | lr · 0 / (√0 + ε)                         |
| … with AMSGrad   | the same, and max_exp_avg_sq                         | lr · 0 / (√max + ε), whatever the maximum |
| NAdam, RAdam     | exp_avg, exp_avg_sq                                  | the same                                  |
| Adamax           | exp_avg, exp_inf                                     | lr · 0 / (max(0, ε))                      |
| Adadelta         | square_avg, acc_delta                                | √(0 + ε) / √(0 + ε) · 0                   |
| Adagrad          | sum                                                  | lr · 0 / (√sum + ε), whatever the sum     |
| RMSprop          | square_avg, momentum_buffer, grad_avg                | lr · 0 / (√0 + ε)                         |

Counts of steps (`step`, `mu_product`) are those of the parameter, and stay. ε = 0 is refused, since 0 / 0 is no step.

What a regulariser does to γ = β = 0: L2 adds λ · 0 to the gradient; the paper's weight decay and decoupled decay
multiply 0; L1 on γ adds λ · sign(0) = 0; cost-aware L2 adds λ · cost · 0, and the cost of each channel that is left
stays what it was. None of them needs anything carried over but these costs.

Not here, and refused: optimisers whose step for one element depends on others (LBFGS, Muon, Adafactor), averages of
the weights inside an optimiser (ASGD), and classes that torch does not have.

What breaks the equality of a shrunk run and a dense one, beside rounding: random numbers drawn in the shape of the
channels (dropout) come from another place of the stream; a penalty in the loss itself counts in the norm that
gradients are clipped by, where removed weights have a part; in short types sums over channels are rounded in another
order. A bias in front of a BatchNorm has a gradient of rounding alone, of which Adam and its kin without L2 make
steps: two runs differ in it, and nothing depends on it. The norm of gradients without a penalty in the loss is the
same, since those of all that is removed are 0.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import optim

from slimnet.errors import UsageError
from slimnet.surgery.apply_plan import Surgeon
from slimnet.surgery.plan import SurgeryPlan

ELEMENTWISE: Mapping[type[optim.Optimizer], frozenset[str]] = {
    optim.SGD: frozenset(["momentum_buffer"]),
    optim.Adam: frozenset(["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]),
    optim.AdamW: frozenset(["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]),
    optim.NAdam: frozenset(["exp_avg", "exp_avg_sq"]),
    optim.RAdam: frozenset(["exp_avg", "exp_avg_sq"]),
    optim.Adamax: frozenset(["exp_avg", "exp_inf"]),
    optim.Adadelta: frozenset(["square_avg", "acc_delta"]),
    optim.Adagrad: frozenset(["sum"]),
    optim.RMSprop: frozenset(["square_avg", "momentum_buffer", "grad_avg"]),
}
"""The optimisers that have an invariant set, and what each keeps in the shape of a parameter."""


def check_optimiser(optimiser: optim.Optimizer) -> None:
    """Refuse an optimiser that does not leave projected channels at zero, or whose state is not known.

    Raises:
        UsageError: naming it and those that do.
    """
    kind = type(optimiser)
    if kind not in ELEMENTWISE:
        known = ", ".join(each.__name__ for each in ELEMENTWISE)
        raise UsageError(
            f"{kind.__name__} may move a channel off zero, or keeps what cannot be cut; use one of {known}"
        )
    for group in optimiser.param_groups:
        if group.get("eps") == 0:
            raise UsageError(f"{kind.__name__} with eps=0 divides 0 by 0 in a dead channel; give it a positive eps")


class TensorCutter:
    """Takes from tensors of a parameter's shape what a plan leaves of that parameter; nothing is folded or merged."""

    def __init__(self, plan: SurgeryPlan) -> None:
        bare = dataclasses.replace(plan, folds=(), merges=(), zeroed=())
        self._surgeon = Surgeon(bare, {}, True)
        self.names = {cut.tensor for cut in plan.cuts} | {group.weight for group in plan.groups}

    def cut(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """What is left of a tensor that belongs to the parameter of this name; itself where nothing goes."""
        return self._surgeon.operate(name, tensor)


def kept_tensors(optimiser: optim.Optimizer, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """What an optimiser keeps in the shape of a parameter, by its name in the state.

    Raises:
        UsageError: something of that shape is not known.
    """
    state: Mapping[str, Any] = optimiser.state.get(parameter, {})
    found = {}
    for key, value in state.items():
        if not isinstance(value, torch.Tensor) or value.shape != parameter.shape or not value.ndim:
            continue
        if key not in ELEMENTWISE[type(optimiser)]:
            raise UsageError(
                f"{type(optimiser).__name__} keeps {key} of a parameter, of which it is not known how to cut"
            )
        found[key] = value
    return found


def forget(optimiser: optim.Optimizer, parameter: torch.Tensor, channels: Sequence[int]) -> None:
    """Set what an optimiser keeps of some elements `(C,)` of a parameter to zero, and their gradient."""
    index = list(channels)
    for kept in kept_tensors(optimiser, parameter).values():
        kept[index] = 0
    if parameter.grad is not None:
        parameter.grad[index] = 0
