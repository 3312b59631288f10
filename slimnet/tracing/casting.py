"""What a forward may ask for where its input is: while it is traced, that is on meta, where torch has no autocast."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from slimnet.places import uncompiled


@contextmanager
def as_with_data() -> Iterator[None]:
    """While the context lasts, a forward runs as it was written and without gradients, on meta tensors as on others."""
    with torch.no_grad(), uncompiled(), autocast_on_meta():
        yield


@contextmanager
def autocast_on_meta() -> Iterator[None]:
    """While the context lasts, `torch.autocast(x.device.type)` of a meta tensor does nothing, instead of raising.

    Channels live where they live in any type, and constants are computed in float64.
    """
    autocast: Any = torch.amp.autocast_mode.autocast
    real = autocast.__init__

    @functools.wraps(real)
    def begun(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        if device_type == "meta":
            real(self, "cpu", torch.bfloat16, enabled=False)
        else:
            real(self, device_type, *args, **kwargs)

    autocast.__init__ = begun
    try:
        yield
    finally:
        autocast.__init__ = real
