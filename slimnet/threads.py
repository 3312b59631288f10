"""How many threads torch computes with on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from slimnet.process_patch import ProcessPatch

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
