"""Building a network that a file describes, within the size that the file states."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from slimnet.errors import ArchitectureError
from slimnet.torch_state.eager_mode import EagerMode

SPARE_ELEMENTS = 1 << 24
"""Further elements that a constructor may create besides the network's tensors: tables, and weights drawn twice."""

SPARE_CALLS = 2_000
CALLS_PER_TENSOR = 40
"""The number of ops that a constructor may run: a constant, and more for the initialisation of each tensor."""

Shapes = Mapping[str, tuple[int, ...]]


class OversizeError(ArchitectureError):
    """A network is larger than stated in the file from which it was read."""


class BoundedBuild(EagerMode):
    """Limits the number of ops that this thread runs in the context, and of the elements that they create.

    The sizes in an op's arguments are checked before memory is allocated, so that a file with a depth or a width of a
    billion costs nothing.
    """

    def __init__(self, elements: int, calls: int) -> None:
        super().__init__()
        self.elements, self.calls = elements, calls

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count an op, then run it.

        Raises:
            OversizeError: it exceeds the number of ops or of elements.
        """
        self.calls -= 1
        self.elements -= _elements_asked_for(args)
        if self.calls < 0 or self.elements < 0:
            raise OversizeError("it builds a network larger than the one that the file describes")
        return func(*args, **(kwargs or {}))


@contextmanager
def bounded_by(shapes: Shapes) -> Iterator[None]:
    """Limit the networks that are built in the context to the size of these tensors, with a margin."""
    elements = sum(map(math.prod, shapes.values()))
    with BoundedBuild(2 * elements + SPARE_ELEMENTS, CALLS_PER_TENSOR * len(shapes) + SPARE_CALLS):
        yield


def bounded_call(make: Callable[[], torch.nn.Module], shapes: Shapes) -> torch.nn.Module:
    """The result of `make`, if it has at most the size of `shapes`.

    Raises:
        OversizeError: it is larger.
    """
    with bounded_by(shapes):
        return make()


def _elements_asked_for(args: tuple[Any, ...]) -> int:
    """The number of elements that the leading arguments of an op ask for, as in `empty([64, 3, 7, 7])`."""
    for value in args[:2]:
        if isinstance(value, list | tuple) and value and all(type(each) is int and each >= 0 for each in value):
            return math.prod(value)
    return 0
