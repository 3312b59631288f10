"""Python's garbage collector, put off while many small objects are made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Collect no cyclic garbage while the context lasts; usable as a decorator.

    A trace makes thousands of objects that all stay, and each full collection that they set off walks through
    everything torch has loaded: a tenth of a second, for nothing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
