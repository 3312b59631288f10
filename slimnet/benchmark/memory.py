"""Peak memory of the activations in one forward: tracked on the CPU, from the allocator on a GPU."""

import copy
import weakref
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from slimnet.modules.example_inputs import Inputs
from slimnet.torch_state.eager_mode import EagerMode


def peak_memory(model: nn.Module, inputs: Inputs, device: str = "cpu") -> int:
    """Bytes of activations at the peak of one forward in evaluation mode, as `Memory` defines them.

    The module is not changed.
    """
    placed = copy.deepcopy(model).eval().to(device)
    given = inputs.map(lambda tensor: tensor.to(device))
    if device == "cpu":
        return followed(placed, given)
    return allocated(placed, given, device)


def followed(model: nn.Module, inputs: Inputs) -> int:
    """The largest total size in bytes of the storages of inputs and created tensors that are alive at once."""
    weights = {storage(tensor)._cdata for tensor in (*model.parameters(), *model.buffers())}
    given = {storage(tensor)._cdata: storage(tensor).nbytes() for tensor in inputs.tensors}
    follower = Follower(known=weights | set(given), live=sum(given.values()))
    with torch.no_grad(), follower:
        output = inputs.call_directly(model)
    del output
    return follower.peak


def allocated(model: nn.Module, inputs: Inputs, device: str) -> int:
    """The peak of the memory allocated by torch on a GPU, minus that before the forward, plus the inputs."""
    with torch.inference_mode(), torch.cuda.device(device):
        inputs.call_directly(model)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        inputs.call_directly(model)
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    return peak - before + sum(tensor.nbytes for tensor in inputs.tensors)


def storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    """The storage of a tensor."""
    return tensor.untyped_storage()


class Follower(EagerMode):
    """Adds up the sizes of the storages that operations return, while these are alive."""

    def __init__(self, known: set[int], live: int):
        super().__init__()
        self.known = known
        self.live = self.peak = live

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.note(storage(leaf))
        self.peak = max(self.peak, self.live)
        return out

    def note(self, made: torch.UntypedStorage) -> None:
        """Count a new storage, until it is freed."""
        if made._cdata in self.known:
            return
        self.known.add(made._cdata)
        self.live += made.nbytes()
        weakref.finalize(made, self.forget, made._cdata, made.nbytes()).atexit = False

    def forget(self, address: int, size: int) -> None:
        """Stop counting a freed storage, whose address may be reused."""
        self.known.discard(address)
        self.live -= size
