"""Building a network that a file describes, within the size that the file says it has."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from slimnet.errors import ArchitectureError

SPARE_ELEMENTS = 1 << 24
"""How many numbers a constructor may make beside the network's own: tables, and weights that it draws twice."""

SPARE_CALLS = 2_000
CALLS_PER_TENSOR = 40
"""How many ops a constructor may run: some, and some for each tensor of the network, which its initialisation takes."""

Shapes = Mapping[str, tuple[int, ...]]


class OversizeError(ArchitectureError):
    """A network that becomes larger than the file it was read from says."""


class BoundedBuild(TorchDispatchMode):
    """While it is entered, this thread may run so many ops, which may make so many numbers; then it raises.

    It looks at the sizes that an op is asked for before any memory is taken, so that a file with a depth or a width of
    a billion costs nothing.
    """

    def __init__(self, elements: int, calls: int) -> None:
        super().__init__()
        self.elements, self.calls = elements, calls

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count an op, then run it.

        Raises:
            OversizeError: it is one too many, or makes too many numbers.
        """
        self.calls -= 1
        self.elements -= _elements_asked_for(args)
        if self.calls < 0 or self.elements < 0:
            raise OversizeError("it builds a network larger than the one that the file describes")
        return func(*args, **(kwargs or {}))


@contextmanager
def bounded_by(shapes: Shapes) -> Iterator[None]:
    """Let networks be built only as large as these tensors, with some to spare, while the context lasts."""
    elements = sum(map(math.prod, shapes.values()))
    with BoundedBuild(2 * elements + SPARE_ELEMENTS, CALLS_PER_TENSOR * len(shapes) + SPARE_CALLS):
        yield


def bounded_call(make: Callable[[], torch.nn.Module], shapes: Shapes) -> torch.nn.Module:
    """What `make` returns, if it has at most the size of `shapes`.

    Raises:
        OversizeError: it has not.
    """
    with bounded_by(shapes):
        return make()


def _elements_asked_for(args: tuple[Any, ...]) -> int:
    """How many numbers the sizes among the leading arguments of an op stand for: `empty([64, 3, 7, 7])`."""
    for value in args[:2]:
        if isinstance(value, list | tuple) and value and all(type(each) is int and each >= 0 for each in value):
            return math.prod(value)
    return 0
