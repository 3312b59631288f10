"""Numbers too small to matter, with which CPUs compute dozens of times more slowly."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

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


def flushes() -> bool:
    """Whether this thread takes denormal numbers for zero."""
    return not torch.full((), DENORMAL, device="cpu").mul(1.0)
