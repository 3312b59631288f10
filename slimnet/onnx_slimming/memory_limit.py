"""A limit on the memory of one forward, for graphs that may come from anywhere: a small file can ask for terabytes."""

import weakref
from typing import Any

import torch
from torch.utils import _pytree as pytree

from slimnet.errors import UsageError
from slimnet.torch_state.eager_mode import EagerMode
from slimnet.tracing import meta_shapes
from slimnet.tracing.ops.registry import spec_of

LIMIT = 2 << 30
"""Bytes that the tensors of a forward may take at once, its inputs and weights aside."""


class MemoryLimit(EagerMode):
    """Refuses an op whose result would not fit, before it runs: its shape is computed on meta tensors.

    Raises:
        UsageError: what lives at once would take more than `limit` bytes.
    """

    def __init__(self, limit: int = LIMIT):
        super().__init__()
        self.limit = limit
        self.held = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if not func._schema.is_mutable:
            self.check(func, args, kwargs)
        out = func(*args, **kwargs)
        given = {storage_of(each) for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)}
        for tensor in pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and storage_of(tensor) not in given:
                self.held += tensor.nbytes
                weakref.finalize(tensor, self.release, tensor.nbytes)
        return out

    def check(self, func: Any, args: tuple, kwargs: dict) -> None:
        """Refuse an op whose results are too large."""
        try:
            on_meta = pytree.tree_map_only(torch.Tensor, as_meta, (args, kwargs | device_of(kwargs)))
            found = run_on_meta(func, *on_meta)
        except (NotImplementedError, RuntimeError):  # an op whose shape depends on values, or one that will raise
            return
        given = {storage_of(each) for each in pytree.tree_leaves(on_meta) if isinstance(each, torch.Tensor)}
        results = [each for each in pytree.tree_leaves(found) if isinstance(each, torch.Tensor)]
        size = sum(each.nbytes for each in results if storage_of(each) not in given)
        if self.held + size > self.limit:
            raise UsageError(
                f"the graph needs more than {self.limit / 1e9:.1f} GB for one forward ({func.overloadpacket.__name__} "
                f"alone {size / 1e9:.1f} GB); pass smaller inputs"
            )

    def release(self, size: int) -> None:
        """A tensor of this many bytes is gone."""
        self.held -= size


def run_on_meta(func: Any, args: tuple, kwargs: dict) -> Any:
    """What an op returns for tensors without values, by the shape rules of the trace where there are some."""
    return meta_shapes.run(func, spec_of(func.overloadpacket.__name__).shape, args, kwargs)


def as_meta(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor without values: the trace has rules for its shapes, torch's own would import its compiler."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def device_of(kwargs: dict) -> dict[str, str]:
    """The device argument of a factory, on meta."""
    return {"device": "meta"} if "device" in kwargs else {}


def storage_of(tensor: torch.Tensor) -> int:
    """What two views of one memory have in common."""
    return int(tensor.untyped_storage()._cdata)
