"""One op of torch: what slimnet knows about it, and one call of it."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, Literal, NamedTuple

import torch

from slimnet.graph.reasons import Kind
from slimnet.tracing.recorder import Recorder

Uses = Literal["all", "part", "others", "none"]
"""Which of the values in its tensors an op uses.

"part": only some positions of the first tensor. "others": nothing of the first tensor, which it overwrites. "none": no
values at all, since its tensors only say what shape or type is wanted.
"""


class OpSpec(NamedTuple):
    """What slimnet knows about one op of torch: its row in the registry.

    The defaults are those of an op of which nothing is known: every channel that it touches is pinned.
    """

    handler: "Handler | None" = None
    """Sets the tags of the outputs; None pins every channel of the op's tensors."""

    pinned: Kind = Kind.UNKNOWN_OP
    """Why these channels are pinned, where there is no handler."""

    shape: "ShapeRule | None" = None
    """What the op returns on meta tensors, where torch's own rule is slow (`meta_shapes.py`)."""

    numbers: "NumberRule | None" = None
    """Which of its numbers a narrower network must repeat (`number_rules.py`); None: all of them."""

    uses: Uses = "all"
    """Which values of its tensors the op uses: their labels must not be lost."""

    broadcasts: bool = False
    """Whether its tensors fit together by broadcasting."""

    activation: bool = False
    """Whether it is an activation, behind which channels can be dead by activation; its handler is `activation`."""

    flat_at_zero: tuple[float, ...] | None = None
    """Where its first numbers are these, its value and its derivative at 0 are 0."""

    factory: bool = False
    """Whether it makes a tensor that is known from no tensors at all."""

    width_free: bool = False
    """Whether it means the same whatever the width, or raises: no size or position in it can be wrong unnoticed."""

    takes_sizes: bool = False
    """Whether it takes sizes or positions, which may be numbers written in the network's code."""

    infers_size: bool = False
    """Whether one size of its output may be inferred from the others."""

    layout_dependent: bool = False
    """Whether torch calls it depending on strides, or on whether an axis has one position or more."""

    reshapes_in_place: bool = False
    """Whether its in-place variant changes a tensor's shape and no value."""


class Call(NamedTuple):
    """One dispatched op with its arguments, the tensors among them, and its outputs, all on the meta device."""

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[torch.Tensor, ...]
    tensors: tuple[torch.Tensor, ...]
    spec: OpSpec

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument given by position or by keyword."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def run(self, tensors: Iterable[torch.Tensor], *drop: str) -> Any:
        """Call the op with other tensors in the place of its own, and without some keyword arguments."""
        given = iter(tensors)
        if len(self.args) == 1 and not self.kwargs and isinstance(self.args[0], torch.Tensor):
            return self.func(next(given))
        args = [replaced(value, given) for value in self.args]
        kwargs = {key: replaced(value, given) for key, value in self.kwargs.items()}
        return self.func(*args, **{key: value for key, value in kwargs.items() if key not in drop})


Handler = Callable[[Recorder, Call], None]
ShapeRule = Callable[..., torch.Tensor | tuple[torch.Tensor, ...] | None]
NumberRule = Callable[[Recorder, Call], tuple[Any, ...]]


def replaced(value: Any, given: Iterator[torch.Tensor]) -> Any:
    """An op's argument with each tensor in it replaced by the next of the given ones."""
    if isinstance(value, torch.Tensor):
        return next(given)
    if isinstance(value, list | tuple):
        return [next(given) if isinstance(item, torch.Tensor) else item for item in value]
    return value


@cache
def is_composite(func: Any) -> bool:
    """Whether an op is made of others."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def tensors_among(args: tuple, kwargs: dict) -> tuple[torch.Tensor, ...]:
    """The tensors among an op's arguments, in lists as well."""
    found = []
    for value in (*args, *kwargs.values()) if kwargs else args:
        if type(value) in NO_TENSORS:
            continue
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, SEQUENCES) and value and type(value[0]) not in NO_TENSORS:
            found += [item for item in value if isinstance(item, torch.Tensor)]
    return tuple(found)


SEQUENCES = (list, tuple)

NO_TENSORS = frozenset([int, float, bool, str, torch.dtype, torch.device])
"""The types of most of an op's arguments that are no tensors."""
