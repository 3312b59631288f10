"""torch functions that depend on the device of the input: while a forward is traced it is meta, without autocast."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from slimnet.torch_state.devices import uncompiled
from slimnet.torch_state.process_patch import attribute_patch
from slimnet.torch_state.random_state import random_numbers_kept


@contextmanager
def as_with_data() -> Iterator[None]:
    """While the context lasts, a forward runs as it was written and without gradients, on meta tensors as on others."""
    with torch.no_grad(), uncompiled(), random_numbers_kept(), _AUTOCAST_ON_META, _LISTS_OF_META:
        yield


def for_meta_too(real: Any) -> Any:
    """`torch.autocast.__init__`, for which `torch.autocast(x.device.type)` of a meta tensor does nothing.

    torch's own raises. Labels do not depend on the type, and constants are computed in float64.
    """

    @functools.wraps(real)
    def begun(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        if device_type == "meta":
            real(self, "cpu", torch.bfloat16, enabled=False)
        else:
            real(self, device_type, *args, **kwargs)

    return begun


def by_element(real: Any) -> Any:
    """`torch.Tensor.tolist`, which asks for the elements of a meta tensor one by one, as `item` does.

    torch's own reads the memory itself, without an op that a trace would see.
    """

    @functools.wraps(real)
    def listed(tensor: torch.Tensor) -> Any:
        if not tensor.is_meta:
            return real(tensor)
        return [row.tolist() for row in tensor.unbind()] if tensor.ndim else tensor.item()

    return listed


_AUTOCAST_ON_META = attribute_patch(torch.amp.autocast_mode.autocast, "__init__", for_meta_too)
_LISTS_OF_META = attribute_patch(torch.Tensor, "tolist", by_element)
