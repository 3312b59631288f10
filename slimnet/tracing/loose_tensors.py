"""Tensors that a traced forward makes from nothing, and may keep in a cache that outlives the trace."""

from collections.abc import Callable
from contextlib import suppress

import torch
from torch.utils import swap_tensors

from slimnet.tracing.op_call import Call

Value = Callable[[], torch.Tensor]


class LooseTensors:
    """The meta tensors of a trace that depend neither on its inputs nor on the network's tensors.

    A forward may keep them outside of its network, such as a table of positions that it makes once for each size. There
    they would meet the data of later calls, so that they get their values when the trace ends.
    """

    def __init__(self) -> None:
        self._made: dict[int, tuple[torch.Tensor, bool]] = {}

    def add(self, tensor: torch.Tensor, *, on_device: bool) -> None:
        """Remember a tensor, and whether the code places it where the network is, not on the CPU."""
        self._made[id(tensor)] = (tensor, on_device)

    def follow(self, call: Call) -> None:
        """Remember the results of an op on none but such tensors."""
        sources = [self._made.get(id(tensor)) for tensor in call.tensors]
        placed = call.kwargs.get("device") is not None
        if None not in sources:
            for tensor in call.outputs:
                self.add(tensor, on_device=placed or any(source[1] for source in sources if source))

    def fill(self, value_of: Callable[[torch.Tensor], Value | None], device: torch.device) -> None:
        """Give each tensor its value in place, as far as `value_of` knows it; `device` is the network's."""
        # The last first: a view refers to what it was taken from, which can be filled once that is the only reference.
        for tensor, on_device in reversed(self._made.values()):
            value = value_of(tensor)
            if value is not None and tensor.is_meta:
                # One to which torch itself refers in another way, or whose value cannot be computed, stays as it is.
                with suppress(RuntimeError):
                    real = value().detach().clone()
                    swap_tensors(tensor, real.to(device) if on_device else real)
        self._made.clear()
