"""Copies of a module that share, replace or drop its tensors; the module itself is never touched."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import CellType, FunctionType
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from slimnet.errors import TraceError, UsageError
from slimnet.modules.network import Network
from slimnet.modules.tensors import CONTAINERS, FROZEN, SEQUENCES, Named, Tensors

TensorMap = Callable[[str, torch.Tensor], torch.Tensor]


def copy_with(
    model: nn.Module | Network, replace: TensorMap, tensors: Mapping[str, torch.Tensor] | None = None
) -> nn.Module:
    """Copy the module's structure, taking each tensor from `replace(name, tensor)`.

    `tensors` are all of the module's by name, in the order in which they are to be replaced.
    Parameters and buffers that are shared inside the module stay shared. Plain tensor attributes (such as the
    `weight` that `torch.nn.utils.prune` recomputes before every forward) are replaced too, under their path.
    """
    network = Network.of(model)
    return copied(network, replace, network.named if tensors is None else tensors)[0]


def copied(network: Network, replace: TensorMap, tensors: Mapping[str, torch.Tensor]) -> tuple[nn.Module, "Copier"]:
    """The copy that `copy_with` makes, and who knows the copies of all tensors and modules."""
    model = network.module
    copier = Copier({id(None): None}, frozenset(map(id, network.modules.values())))
    for name, tensor in tensors.items():
        if id(tensor) in copier.memo:
            continue
        new = replace(name, tensor)
        if new is not tensor and is_parameter(tensor) and not is_parameter(new):
            new = nn.Parameter(new, requires_grad=tensor.requires_grad)
        copier.memo[id(tensor)] = new
    try:
        return copier.module(model), copier
    except (RuntimeError, TypeError, copy.Error) as error:
        reason = str(error).splitlines()[0]
        raise TraceError(
            f"{type(model).__name__} cannot be copied: {reason}; slim a plain nn.Module (a wrapper's .module)"
        ) from error


def is_parameter(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a parameter; the check of torch's own class is slow for plain tensors."""
    kind = type(tensor)
    return kind is nn.Parameter or (kind is not torch.Tensor and isinstance(tensor, nn.Parameter))


COPY_PROTOCOL = (
    "__deepcopy__",
    "__copy__",
    "__getstate__",
    "__setstate__",
    "__reduce__",
    "__reduce_ex__",
    "__new__",
)


OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""The attributes of torch's own, which no two modules share."""

KEEPERS = (dict, list, set, FunctionType)
"""In what a hook keeps what it sees, and functions that may have closed over such things."""


@dataclass
class Copier:
    """`copy.deepcopy` for modules, without its general machinery: most of a network is empty dicts and numbers.

    `memo` maps the ids of what is already copied to the copies, `modules` are the ids of all modules that belong to the
    network, and `special` says which classes copy themselves.
    """

    memo: dict[int, Any]
    modules: frozenset[int]
    special: dict[type, bool] = field(default_factory=dict)

    def module(self, module: nn.Module) -> nn.Module:
        """A copy of a module and of all below it."""
        kind = type(module)
        if id(module) in self.memo:
            return self.memo[id(module)]
        if kind not in self.special:
            self.special[kind] = copies_itself(kind)
        if self.special[kind]:
            return copy.deepcopy(module, self.memo)
        new = self.memo[id(module)] = kind.__new__(kind)
        attributes = new.__dict__
        # What copies itself may add to the module's attributes meanwhile.
        given = vars(module).copy()
        attributes.update(given)
        for name, value in given.items():
            kind = type(value)
            if kind in FROZEN or (kind is tuple and FROZEN.issuperset(map(type, value))):
                continue
            if kind in CONTAINERS and not value:
                attributes[name] = kind() if name in OF_EVERY_MODULE else self.memo.setdefault(id(value), kind())
            elif name == "_modules":
                attributes[name] = {key: child if child is None else self.module(child) for key, child in value.items()}
            # `nn.Module.compile` leaves a function that would go on running the original.
            elif name != "_compiled_call_impl":
                attributes[name] = self.value(value)
            else:
                del attributes[name]
        return new

    def network(self, original: Network) -> Network:
        """The copy of a network that has been copied; another walk where a module may have made tensors of its own."""
        memo = self.memo
        module = memo[id(original.module)]
        if any(self.special.values()):
            return Network.of(module)
        modules = {path: memo[id(each)] for path, each in original.modules.items()}
        return Network(module, Tensors(*map(self.tensors, original.tensors)), modules)

    def tensors(self, originals: Named) -> Named:
        """The copies of some tensors, by name."""
        return {name: self.memo[id(tensor)] for name, tensor in originals.items()}

    def value(self, value: Any) -> Any:
        """A copy of one attribute of a module; what several modules share, their copies share too."""
        kind, memo = type(value), self.memo
        if id(value) in memo:
            return memo[id(value)]
        if kind is dict and memo.keys() >= set(map(id, value.values())):
            return memo.setdefault(id(value), {key: memo[id(item)] for key, item in value.items()})
        if kind is FunctionType:
            return self.function(value)
        if kind in (dict, OrderedDict):
            # What it holds may lead back to it.
            copied = memo[id(value)] = kind()
            copied.update((key, memo[id(item)] if id(item) in memo else self.item(item)) for key, item in value.items())
            return copied
        if kind in SEQUENCES and FROZEN.issuperset(map(type, value)):
            return memo.setdefault(id(value), kind(value))
        self.detach_tensors(value)
        return copy.deepcopy(value, memo)

    def item(self, item: Any) -> Any:
        """A copy of what a container holds."""
        return item if type(item) in FROZEN else self.module(item) if isinstance(item, nn.Module) else self.value(item)

    def detach_tensors(self, value: Any) -> None:
        """Let tensors that a forward in training has left behind be copied, which `copy.deepcopy` refuses to do."""
        for leaf in pytree.tree_leaves(value):
            if isinstance(leaf, torch.Tensor) and not leaf.is_leaf and id(leaf) not in self.memo:
                self.memo[id(leaf)] = leaf.detach().clone()

    def function(self, function: FunctionType) -> FunctionType:
        """A function over the copies of the modules and containers that it has closed over, such as a hook."""
        cells = function.__closure__ or ()
        held = [cell.cell_contents if cell_filled(cell) else None for cell in cells]
        new = [self.closed_over(each) for each in held]
        if all(one is other for one, other in zip(held, new, strict=True)):
            return function
        changed = tuple(
            cell if one is other else CellType(other) for cell, one, other in zip(cells, held, new, strict=True)
        )
        copied = FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, changed
        )
        copied.__kwdefaults__ = function.__kwdefaults__
        copied.__qualname__ = function.__qualname__
        copied.__dict__.update(function.__dict__)
        return copied

    def closed_over(self, value: Any) -> Any:
        """A copy of what a function has closed over, where that is the network's or a hook keeps things in it."""
        if isinstance(value, nn.Module):
            return self.module(value) if id(value) in self.modules else value
        if not isinstance(value, KEEPERS):
            return value
        try:
            return self.value(value)
        except (RuntimeError, TypeError, copy.Error):
            # It is not of the network, whose own attributes are copied before or will be.
            return value


def cell_filled(cell: CellType) -> bool:
    """Whether a variable that a function has closed over has a value yet."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def copies_itself(kind: type) -> bool:
    """Whether a class has its own way of being copied; that of torch's own layers only serves old pickles."""
    for name in COPY_PROTOCOL:
        own = getattr(kind, name, None)
        if own is not getattr(nn.Module, name, None) and not str(getattr(own, "__module__", "")).startswith("torch.nn"):
            return True
    return False


def check_filled(model: nn.Module | Network) -> None:
    """Refuse a network that has shapes but no values.

    Raises:
        UsageError: a parameter or a buffer is on the meta device.
    """
    for name, tensor in Network.of(model).state.items():
        if tensor.is_meta:
            raise UsageError(
                f"the network's {name} is on the meta device, which holds no values; build it elsewhere (with "
                'torch.device("cpu")) and load its weights'
            )


def skeleton(network: Network, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Network:
    """A copy of a network with every tensor on the `meta` device: its code and shapes without its weights.

    `shapes` overrides the shapes of some tensors.
    """
    resized = shapes or {}
    meta = torch.device("meta")

    def empty(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name in resized:
            return torch.empty(resized[name], dtype=tensor.dtype, device=meta)
        return torch.empty_like(tensor, device=meta, memory_format=torch.contiguous_format)

    return copied(network, empty, network.named)[1].network(network)


def shared_copy(model: nn.Module | Network, replaced: Mapping[str, torch.Tensor] | None = None) -> nn.Module:
    """A copy with its own mode flags and hooks but the same tensors, some replaced by name."""
    changed = replaced or {}
    return copy_with(model, lambda name, tensor: changed.get(name, tensor))


def eval_copy(model: nn.Module | Network, replaced: Mapping[str, torch.Tensor] | None = None) -> nn.Module:
    """A copy in evaluation mode, some tensors replaced, whose forward may write into its buffers: they are its own.

    Its parameters share their values with the network's, but are objects of its own, which may be given others.
    """
    network = Network.of(model)
    tensors = network.tensors
    own = {name: tensor.detach().clone() for name, tensor in (tensors.buffers | tensors.plain).items()}
    own |= {name: same_values(parameter) for name, parameter in tensors.parameters.items()}
    return shared_copy(network, own | dict(replaced or {})).eval()


def same_values(parameter: torch.Tensor) -> torch.Tensor:
    """Another parameter over the same memory; one of a class of its own as it is."""
    if type(parameter) is not nn.Parameter:
        return parameter
    return nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
