"""A GPU made of the CPU: tensors that say they are on "cuda", and refuse to meet those that are not.

Arithmetic is done on the CPU. What a real GPU would refuse is refused here too: an op on tensors of both places, and
`.numpy()`. So code that moves tensors about can be tested where there is no GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda:0")
MIXED = ("aten::_to_copy", "aten::copy_", "aten::index", "aten::index_put_")
"""What takes tensors of both places: copies, and numbers of rows that lie on the CPU."""


class Elsewhere(torch.Tensor):
    """A tensor on the pretended GPU; `held` is what it holds."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Elsewhere":
        # To torch itself it is on the CPU, since without a GPU it cannot even look at tensors that are not.
        own = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, layout=held.layout
        )
        own.held = held
        return own

    @property
    def device(self) -> torch.device:
        return GPU

    def cpu(self) -> torch.Tensor:
        return self.held.clone()

    def to(self, *args, **kwargs) -> torch.Tensor:
        target = next((each for each in args if isinstance(each, str | torch.device | torch.Tensor)), None)
        where = getattr(target, "device", target) or kwargs.get("device") or GPU
        args = [torch.device("cpu") if each is target and not isinstance(each, torch.Tensor) else each for each in args]
        moved = self.held.to(*map(opened, args), **{**kwargs, "copy": kwargs.get("copy", False)})
        return moved.clone() if torch.device(where).type == "cpu" else self if moved is self.held else Elsewhere(moved)

    def numpy(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __repr__(self, *, tensor_contents=None) -> str:
        return f"Elsewhere({self.held!r})"

    def tolist(self) -> list:
        return self.held.tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatched(func, args, kwargs or {})


class PretendedGpu(TorchDispatchMode):
    """While it lasts, tensors can be made on "cuda" and brought there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatched(func, args, kwargs or {})


def dispatched(func, args, kwargs):
    given = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    there = [each for each in given if isinstance(each, Elsewhere)]
    strangers = [each for each in given if not isinstance(each, Elsewhere) and each.ndim and not each.is_meta]
    if there and strangers and func._schema.name not in MIXED:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got cuda:0 and cpu")
    device = kwargs.get("device")
    if device is not None and torch.device(device).type == "cuda":
        kwargs = {**kwargs, "device": torch.device("cpu")}
    out = func(*pytree.tree_map(opened, args), **pytree.tree_map(opened, kwargs))
    if func._schema.name == "aten::copy_" or (func._schema.is_mutable and func._schema.name.endswith("_")):
        return args[0]
    goes = torch.device(device).type == "cuda" if device is not None else bool(there)
    return pytree.tree_map(closed, out) if goes else out


def opened(value):
    return value.held if isinstance(value, Elsewhere) else value


def closed(value):
    wrap = isinstance(value, torch.Tensor) and not value.is_meta and not isinstance(value, Elsewhere)
    return Elsewhere(value) if wrap else value


def moved(model: nn.Module) -> nn.Module:
    """The network itself, its tensors on the pretended GPU, where autograd does not work."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                new = Elsewhere(parameter.detach().clone())
                module._parameters[name] = nn.Parameter(new, requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Elsewhere(buffer.clone())
    return model


@contextmanager
def gpu() -> Iterator[None]:
    """A place with a pretended GPU."""
    with mock.patch("torch.cuda._lazy_init"), PretendedGpu():
        yield
