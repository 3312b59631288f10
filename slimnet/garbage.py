"""Memory that is not needed: when Python looks for it, and when the system gets it back."""

import ctypes
import gc
import sys

from slimnet.process_patch import ProcessPatch


def collection_paused() -> ProcessPatch[bool]:
    """Collect no cyclic garbage while the context lasts; usable as a decorator.

    A trace makes thousands of objects that all stay, and each full collection that they set off walks through
    everything torch has loaded: a tenth of a second, for nothing.
    """
    return _PAUSE


def _pause() -> bool:
    enabled = gc.isenabled()
    gc.disable()
    return enabled


def _resume(enabled: bool) -> None:
    if enabled:
        gc.enable()


_PAUSE = ProcessPatch(_pause, _resume)


def return_memory() -> None:
    """Give the system back what is free between the C library's pieces in use, where it is one that can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
