"""Memory that is not needed: when Python looks for it, and when the system gets it back."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from slimnet.torch_state.process_patch import ProcessPatch


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


_NUMBER_KEPT = ProcessPatch(torch.get_num_threads, torch.set_num_threads)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` threads while the context lasts; None leaves the number as it is.

    torch keeps the number for each of Python's threads, and gives a new one that which was set last: so the last
    context that ends sets what the first one found.
    """
    with _NUMBER_KEPT:
        before = torch.get_num_threads()
        torch.set_num_threads(count or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


DENORMAL = 1e-39
"""A number of float32 below its smallest normal one, 1.2e-38."""


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Let the CPU take denormal numbers, those below 1.2e-38, for zero while the context lasts.

    A dead filter under Adam and L2 ends among them: γ, β, its weights, their moments, and what it makes of an image.
    Nothing else in a network is that small, so nothing else changes.

    It holds for this thread and for the threads of torch that begin to work for it meanwhile; those that already do
    stay as they are. A program that wants the same bits from every run does well to enter it first of all.
    """
    before = flushes()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def denormals_kept() -> Iterator[None]:
    """Put back how this thread takes denormal numbers, which another library changes in the context."""
    before = flushes()
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def flushes() -> bool:
    """Whether this thread takes denormal numbers for zero."""
    return not torch.full((), DENORMAL, device="cpu").mul(1.0)
