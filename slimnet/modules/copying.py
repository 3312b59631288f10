"""Copies of a module that share, replace or drop its tensors; the module itself is never touched."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

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
    copier = Copier({id(None): None})
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


@dataclass
class Copier:
    """`copy.deepcopy` for modules, without its general machinery: most of a network is empty dicts and numbers.

    `memo` maps the ids of what is already copied to the copies; `special` says which classes copy themselves.
    """

    memo: dict[int, Any]
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
                attributes[name] = kind()
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
        """A copy of one attribute of a module."""
        kind, memo = type(value), self.memo
        if kind is dict and memo.keys() >= set(map(id, value.values())):
            return {key: memo[id(item)] for key, item in value.items()}
        if kind in SEQUENCES and FROZEN.issuperset(map(type, value)):
            return kind(value)
        return copy.deepcopy(value, self.memo)


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
    """A copy in evaluation mode, some tensors replaced, whose forward may write into its buffers: they are its own."""
    network = Network.of(model)
    buffers = {name: buffer.detach().clone() for name, buffer in network.tensors.buffers.items()}
    return shared_copy(network, buffers | dict(replaced or {})).eval()
