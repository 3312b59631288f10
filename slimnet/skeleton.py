"""Copies of a module that share, replace or drop its tensors; the module itself is never touched."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from slimnet.errors import TraceError

TensorMap = Callable[[str, torch.Tensor], torch.Tensor]


def copy_with(model: nn.Module, replace: TensorMap) -> nn.Module:
    """Copy the module's structure, taking each tensor from `replace(name, tensor)`.

    Parameters and buffers that are shared inside the module stay shared. Plain tensor attributes (such as the
    `weight` that `torch.nn.utils.prune` recomputes before every forward) are replaced too, under their path.
    """
    memo: dict[int, object] = {}
    for name, tensor in named_tensors(model):
        if id(tensor) in memo:
            continue
        new = replace(name, tensor)
        if isinstance(tensor, nn.Parameter) and not isinstance(new, nn.Parameter):
            new = nn.Parameter(new, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = new
    try:
        return copy_module(model, memo)
    except (RuntimeError, TypeError, copy.Error) as error:
        reason = str(error).splitlines()[0]
        raise TraceError(f"{type(model).__name__} cannot be copied: {reason}; slim a plain nn.Module") from error


def copy_module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """`copy.deepcopy` for modules, without its general machinery: most of a network is empty dicts and numbers."""
    kind = type(module)
    if id(module) in memo:
        return memo[id(module)]
    if copies_itself(kind):
        return copy.deepcopy(module, memo)
    new = kind.__new__(kind)
    memo[id(module)] = new
    for name, value in vars(module).items():
        if name == "_modules":
            children = {key: child if child is None else copy_module(child, memo) for key, child in value.items()}
            new.__dict__[name] = children
        else:
            new.__dict__[name] = value if isinstance(value, FROZEN) else copy_value(value, memo)
    return new


def copies_itself(kind: type) -> bool:
    """Whether a class has its own way of being copied; that of torch's own layers only serves old pickles."""
    for name in COPY_PROTOCOL:
        own = getattr(kind, name, None)
        if own is not getattr(nn.Module, name, None) and not str(getattr(own, "__module__", "")).startswith("torch.nn"):
            return True
    return False


COPY_PROTOCOL = (
    "__deepcopy__",
    "__copy__",
    "__getstate__",
    "__setstate__",
    "__reduce__",
    "__reduce_ex__",
    "__new__",
)
FROZEN = (str, int, float, bool, type(None), torch.device, torch.dtype)


def copy_value(value: Any, memo: dict[int, Any]) -> Any:
    """A copy of one attribute of a module."""
    kind = type(value)
    if kind in (dict, OrderedDict, set) and not value:
        return kind()
    if kind in (tuple, list, set) and all(isinstance(item, FROZEN) for item in value):
        return kind(value)
    if kind is dict and all(item is None or id(item) in memo for item in value.values()):
        return {key: None if item is None else memo[id(item)] for key, item in value.items()}
    return copy.deepcopy(value, memo)


def named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter, buffer and plain tensor attribute with its path."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                yield (f"{path}.{name}" if path else name), value


def skeleton(model: nn.Module, shapes: Mapping[str, tuple[int, ...]] | None = None) -> nn.Module:
    """The module with every tensor on the `meta` device: its code and shapes without its weights.

    `shapes` overrides the shapes of some tensors by name.
    """
    resized = shapes or {}

    def empty(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty(resized.get(name, tuple(tensor.shape)), dtype=tensor.dtype, device="meta")

    return copy_with(model, empty)


def shared_copy(model: nn.Module, replaced: Mapping[str, torch.Tensor] | None = None) -> nn.Module:
    """The module with its own mode flags and hooks but the same tensors, some replaced by name."""
    changed = replaced or {}
    return copy_with(model, lambda name, tensor: changed.get(name, tensor))


@contextmanager
def module_paths(model: nn.Module, path: list[str]) -> Iterator[None]:
    """While the context lasts, keep the path of the module whose forward is running at the end of `path`."""
    names = {id(module): name for name, module in model.named_modules()}

    def enter(module: nn.Module, _: Any) -> None:
        if id(module) in names:
            path.append(names[id(module)])

    def leave(module: nn.Module, _: Any, __: Any) -> None:
        if id(module) in names:
            path.pop()

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
