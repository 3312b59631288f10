"""Network: a module with its tensors and its modules by path, found in one walk and handed from stage to stage."""

from dataclasses import dataclass
from functools import cached_property
from typing import Union

import torch
from torch import nn

from slimnet.arguments import check_type
from slimnet.modules.tensors import NO_TENSORS, Named, Tensors


@dataclass(frozen=True, eq=False)
class Network:
    """A module, its tensors, and its modules under their first paths, as `named_modules` lists them.

    It holds as long as nobody gives the module other tensors or modules; values may change.
    """

    module: nn.Module
    tensors: Tensors
    modules: dict[str, nn.Module]

    @classmethod
    def of(cls, module: Union[nn.Module, "Network"]) -> "Network":
        """Walk over a module once; a network is returned as it is.

        Raises:
            UsageError: it is no module.
        """
        if isinstance(module, Network):
            return module
        check_type("model", module, nn.Module, "pass a torch.nn.Module")
        found = cls(module, Tensors({}, {}, {}), {})
        add_module(module, "", found, set())
        return found

    @property
    def name(self) -> str:
        """The name of the module's class."""
        return type(self.module).__name__

    @cached_property
    def state(self) -> Named:
        """The parameters, then the buffers, shared ones under each of their names."""
        return self.tensors.state

    @cached_property
    def named(self) -> Named:
        """The parameters, then the buffers, then the plain tensor attributes."""
        return self.tensors.named


def add_module(module: nn.Module, prefix: str, found: Network, seen: set[int]) -> None:
    """Add a module, its tensors, and all below it; `seen` are the ids of modules that were found by another path.

    Not a function inside another: one that calls itself would keep all it has seen until Python's garbage is collected.
    """
    parameters, buffers, plain = found.tensors
    for name, parameter in module._parameters.items():
        if parameter is not None:
            parameters[prefix + name] = parameter
    for name, buffer in module._buffers.items():
        if buffer is not None:
            buffers[prefix + name] = buffer
    if id(module) not in seen:
        seen.add(id(module))
        found.modules[prefix[:-1]] = module
        attributes = vars(module)
        if not NO_TENSORS.issuperset(map(type, attributes.values())):
            for name in sorted(n for n, value in attributes.items() if isinstance(value, torch.Tensor)):
                plain[prefix + name] = attributes[name]
    for name, child in module._modules.items():
        if child is not None:
            add_module(child, f"{prefix}{name}.", found, seen)
