"""What a shrinker refuses: networks that it could not narrow together with all that depends on their widths."""

import gc
from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from slimnet.errors import UsageError
from slimnet.modules.network import Network

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def check_network(model: nn.Module, optimiser: Optimizer) -> None:
    """Refuse a network that is wrapped or compiled, cannot be trained, is partly frozen, or has another optimiser.

    Raises:
        UsageError: one of these, naming the first parameter.
    """
    if isinstance(model, WRAPPERS):
        raise UsageError(f"the network is in a {type(model).__name__}; pass its .module, and wrap again after each cut")
    if "_orig_mod" in model._modules or any(module._compiled_call_impl is not None for module in model.modules()):
        raise UsageError("the network was compiled before; pass the module itself, and compile after each cut")
    trained = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.is_inference():
            raise UsageError(
                f"{name} was made in inference mode and cannot be trained; build the network outside of it"
            )
        if not parameter.requires_grad:
            raise UsageError(f"{name} is frozen; shrink a network that is trained whole, or slim it after training")
        if id(parameter) not in trained:
            raise UsageError(f"the optimiser does not train {name}; pass the one that trains this network")


def check_copies(model: nn.Module, also: Sequence[nn.Module]) -> None:
    """Refuse copies that are not of the network's shapes, or share tensors with it.

    Raises:
        UsageError: naming the first tensor.
    """
    own = Network.of(model).state
    mine = {id(tensor) for tensor in own.values()}
    for copy in also:
        if not isinstance(copy, nn.Module):
            raise UsageError(
                f"also= holds a {type(copy).__name__}; pass modules like the network (an average's .module)"
            )
        tensors = Network.of(copy).state
        for name in [*own, *(name for name in tensors if name not in own)]:
            if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
                raise UsageError(
                    f"also= holds a module that differs from the network at {name}; pass copies of it (an average's "
                    ".module)"
                )
            if id(tensors[name]) in mine:
                raise UsageError(f"also= holds a module that shares {name} with the network; leave it out")


def check_own(model: nn.Module, also: Sequence[nn.Module] = ()) -> None:
    """Refuse parameters that a module outside the network holds as well: it would not fit narrower ones.

    Raises:
        UsageError: naming the first.
    """
    if outside_of(model, also):
        # What nobody holds any more is no module outside.
        gc.collect()
        for name, kind in outside_of(model, also):
            raise UsageError(
                f"{name} is shared with a {kind} outside the network; pass the module that holds both, or give each "
                "its own"
            )


def outside_of(model: nn.Module, also: Sequence[nn.Module]) -> list[tuple[str, str]]:
    """Parameters that modules outside a network and its copies hold: their names, and the classes of the modules."""
    inside = {id(module) for top in (model, *also) for module in top.modules()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = []
    for module in gc.get_objects():
        if issubclass(type(module), nn.Module) and id(module) not in inside:
            held = vars(module).get("_parameters", {}).values()
            found += [(names[id(each)], type(module).__name__) for each in held if id(each) in names]
    return found
