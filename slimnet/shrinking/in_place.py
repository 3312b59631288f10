"""narrow_in_place: cut a network itself, its copies and its optimiser's state; parameters stay the same objects."""

import weakref
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from slimnet.errors import PlanError, UsageError
from slimnet.modules.network import Network
from slimnet.shrinking.optimizer_state import TensorCutter, kept_tensors
from slimnet.surgery.apply_plan import set_widths
from slimnet.surgery.plan import SurgeryPlan


def check_narrowing(model: nn.Module, plan: SurgeryPlan, optimiser: Optimizer, also: Sequence[nn.Module] = ()) -> None:
    """Refuse what `narrow_in_place` could not do; it changes tensors one after the other.

    Raises:
        UsageError: something outside holds on to a parameter.
        PlanError: the plan is for another network, or moves constants into weights.
    """
    if plan.folds or plan.merges:
        raise PlanError("the plan folds constants into weights, which changes training; a shrinker only removes zeros")
    cutter = TensorCutter(plan)
    for module in (model, *also):
        plan.check_fits(type(module).__name__, Network.of(module).tensors)
        for name, tensor in changing(module, cutter):
            check_free(name, tensor)
            if module is model:
                kept_tensors(optimiser, tensor)


@torch.no_grad()
def narrow_in_place(model: nn.Module, plan: SurgeryPlan, optimiser: Optimizer, also: Sequence[nn.Module] = ()) -> None:
    """Do what a plan that only cuts says to a network, copies of it, and its optimiser's state.

    Parameters and buffers stay the objects that they are. `check_narrowing` has found nothing against it.
    """
    cutter = TensorCutter(plan)
    for name, tensor in changing(model, cutter):
        kept = kept_tensors(optimiser, tensor)
        if kept:
            optimiser.state[tensor].update({key: cutter.cut(name, value) for key, value in kept.items()})
    for module in (model, *also):
        for name, tensor in list(changing(module, cutter)):
            grad = None if tensor.grad is None else cutter.cut(name, tensor.grad)
            become(tensor, cutter.cut(name, tensor.detach()), grad)
        set_widths(Network.of(module), plan)


def changing(module: nn.Module, cutter: TensorCutter) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that a cut changes, each under its first name."""
    seen: set[int] = set()
    for name, tensor in Network.of(module).named.items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            if name in cutter.names:
                yield name, tensor


def check_free(name: str, tensor: torch.Tensor) -> None:
    """Refuse a tensor that something beside Python and one graph of a loss holds.

    Raises:
        UsageError: it does, as `DistributedDataParallel` or another optimiser's buffer of gradients.
    """
    if not tensor.requires_grad:
        return
    count = uses(tensor)
    if count > 2:
        raise UsageError(
            f"something else holds {name} at its width: a loss before its backward pass, or DistributedDataParallel; "
            "cut between steps, and wrap the network again after a cut"
        )
    # torch cannot move hooks and weak references to a new tensor.
    if count == 2 and (tensor._backward_hooks or tensor._post_accumulate_grad_hooks or weakref.getweakrefs(tensor)):
        raise UsageError(f"a loss that is still there holds {name}, which has hooks; delete the loss before a cut")


def become(tensor: torch.Tensor, values: torch.Tensor, grad: torch.Tensor | None) -> None:
    """Give a tensor other values of another shape, and such a gradient; it stays the same object."""
    tensor.grad = None
    if uses(tensor) == 1 or not tensor.requires_grad:
        tensor.data = values
    else:
        # A loss that is still there knows the old shape. It keeps the old tensor; this one starts anew.
        other = nn.Parameter(values, requires_grad=tensor.requires_grad)
        torch.utils.swap_tensors(tensor, other)
        tensor.__dict__.update(other.__dict__)
    tensor.grad = grad


def uses(tensor: torch.Tensor) -> int:
    """How many holders a tensor has inside torch: itself, and what a loss that is still there adds gradients to."""
    return tensor._use_count()  # type: ignore[attr-defined]
