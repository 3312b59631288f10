"""Integer attributes of modules: those in lists, tuples and dataclasses too, by a dotted path."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from slimnet.errors import PlanError
from slimnet.modules.network import Network

KEEP_WEIGHTS_SIZES = frozenset(
    {
        "in_channels",
        "out_channels",
        "groups",
        "in_features",
        "out_features",
        "normalized_shape",
        "num_channels",
        "num_features",
        "num_groups",
        "num_parameters",
        "input_size",
    }
)
"""The attributes of torch's layers, and of classes made of them, that are set from the sizes of their weights."""


def is_from_torch(module: str) -> bool:
    """Whether a module of Python is torch's own."""
    return module.partition(".")[0] == "torch"


def set_integer(network: Network, module: str, path: str, before: int, after: int) -> None:
    """Change an integer of a module of a network that is ours to change; modules that share its object follow.

    Raises:
        PlanError: there is no such integer, or it has another value.
    """
    owner = network.modules.get(module)
    name, *rest = path.split(".")
    where = f"{module}.{path}" if module else path
    if owner is None or name not in vars(owner):
        raise PlanError(f"the plan changes {where}, which the network does not have")
    old = vars(owner)[name]
    new = changed(old, rest, before, after, where)
    vars(owner)[name] = new
    if rest and dataclasses.is_dataclass(old):
        for other in network.modules.values():
            for key, value in vars(other).items():
                if value is old:
                    vars(other)[key] = new


def changed(value: Any, path: Sequence[str], before: int, after: int, where: str) -> Any:
    """A value in which the integer at a path is another one; nothing of the value itself changes.

    Raises:
        PlanError: as `set_integer`.
    """
    if not path:
        if not isinstance(value, int) or isinstance(value, bool):
            raise PlanError(f"the plan changes {where}, which is not an integer")
        if value != before:
            raise PlanError(f"the plan changes {where} from {before}, but the network has {value}")
        return after
    name, *rest = path
    if type(value) in (list, tuple) and name.isdecimal() and int(name) < len(value):
        items = list(value)
        items[int(name)] = changed(items[int(name)], rest, before, after, where)
        return type(value)(items)
    if dataclasses.is_dataclass(value) and name in {field.name for field in dataclasses.fields(value)}:
        new = copy.copy(value)
        object.__setattr__(new, name, changed(getattr(value, name), rest, before, after, where))
        return new
    raise PlanError(f"the plan changes {where}, which the network does not have")
