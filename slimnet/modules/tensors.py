"""tensors"""

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import nn

FROZEN = frozenset([str, int, float, bool, type(None), torch.device, torch.dtype, torch.Size])


CONTAINERS = frozenset([dict, OrderedDict, set, list])


SEQUENCES = frozenset([tuple, list, set])


NO_TENSORS = FROZEN | CONTAINERS | SEQUENCES
"""Types of attributes that are no tensors themselves."""


Named = dict[str, torch.Tensor]


class Tensors(NamedTuple):
    """A module's tensors by path; shared parameters and buffers stand under each of their names."""

    parameters: Named
    buffers: Named
    plain: Named

    @property
    def state(self) -> Named:
        """The parameters, then the buffers."""
        return {**self.parameters, **self.buffers}

    @property
    def named(self) -> Named:
        """The parameters, then the buffers, then the plain tensor attributes."""
        return {**self.parameters, **self.buffers, **self.plain}


def state(model: nn.Module) -> Named:
    """The parameters and buffers of a module by name, shared ones under each of their names."""
    return gather(model).state


def gather(model: nn.Module) -> Tensors:
    """The parameters, the buffers and the plain tensor attributes of a module, in one walk."""
    found = Tensors({}, {}, {})
    add_tensors(model, "", found, set())
    return found


def add_tensors(module: nn.Module, prefix: str, found: Tensors, seen: set[int]) -> None:
    """Add the tensors of a module and of all below it; `seen` are modules whose plain attributes are known already.

    Not a function inside another: one that calls itself would keep all it has seen until Python's garbage is collected.
    """
    for name, parameter in module._parameters.items():
        if parameter is not None:
            found.parameters[prefix + name] = parameter
    for name, buffer in module._buffers.items():
        if buffer is not None:
            found.buffers[prefix + name] = buffer
    if id(module) not in seen:
        seen.add(id(module))
        attributes = vars(module)
        if not NO_TENSORS.issuperset(map(type, attributes.values())):
            for name in sorted(n for n, value in attributes.items() if isinstance(value, torch.Tensor)):
                found.plain[prefix + name] = attributes[name]
    for name, child in module._modules.items():
        if child is not None:
            add_tensors(child, f"{prefix}{name}.", found, seen)


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """Every module under its first path, as `named_modules` lists them."""
    found: dict[int, tuple[str, nn.Module]] = {}
    add_modules(model, "", found)
    return dict(found.values())


def add_modules(module: nn.Module, path: str, found: dict[int, tuple[str, nn.Module]]) -> None:
    """Add a module and all below it to those found, by id."""
    if id(module) not in found:
        found[id(module)] = (path, module)
        prefix = f"{path}." if path else ""
        for name, child in module._modules.items():
            if child is not None:
                add_modules(child, prefix + name, found)
