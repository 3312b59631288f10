"""Copies of a module that share, replace or drop its tensors; the module itself is never touched."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

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
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError, copy.Error) as error:
        reason = str(error).splitlines()[0]
        raise TraceError(f"{type(model).__name__} cannot be copied: {reason}; slim a plain nn.Module") from error


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
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: path.append(name)))
        handles.append(module.register_forward_hook(lambda *_: leave(path)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def leave(path: list[str]) -> None:
    """Step out of the innermost module."""
    path.pop()
