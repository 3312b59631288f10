"""Integers that remember where they come from: attributes of modules, widths of tensors, and what is computed of them.

A forward computes sizes in Python, and an op is given no more than the results. While a network is traced, the integers
in its modules, and in the shapes of its tensors, are of a class that keeps the formula.
"""

import copy
import dataclasses
import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from slimnet.graph.labels import varying_axes
from slimnet.graph.sizes import Formula, IntegerAttribute, Size, Width
from slimnet.modules.attributes import KEEP_WEIGHTS_SIZES, is_from_torch
from slimnet.modules.network import Network
from slimnet.tracing.recorder import Mark, Recorder

LONGEST_FORMULA = 16
"""The most operations in a formula; a number that is counted up in a loop is none of a width."""


class SizeNumber(int):
    """An integer and the size that it is; `trace` says which trace made it, since other code may keep it for later."""

    size: Size
    trace: Mark
    depth: int

    @classmethod
    def of(cls, value: int, size: Size, trace: Mark, depth: int = 0) -> "SizeNumber":
        """A number that is some size."""
        number = cls(value)
        number.size, number.trace, number.depth = size, trace, depth
        return number

    def __eq__(self, other: object) -> bool:
        equal = int(self) == other
        if equal and isinstance(other, SizeNumber) and other.trace is self.trace:
            self.trace.note_equal(self.size, other.size)
        return equal

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return int, (int(self),)


def followed(name: str, operation: str, *, reflected: bool) -> Callable[[SizeNumber, Any], Any]:
    """An operation of `int` whose result remembers the operands."""
    plain = getattr(int, name)

    def compute(number: SizeNumber, other: Any) -> Any:
        result = plain(number, other)
        if type(result) is not int or not isinstance(other, int):
            return result
        operand: Size = int(other)
        depth = number.depth
        if isinstance(other, SizeNumber) and other.trace is number.trace:
            operand, depth = other.size, max(depth, other.depth)
        if depth >= LONGEST_FORMULA:
            return result
        sides = (operand, number.size) if reflected else (number.size, operand)
        return SizeNumber.of(result, Formula(operation, *sides), number.trace, depth + 1)

    return compute


for operation in ("add", "sub", "mul", "floordiv"):
    for reflected in (False, True):
        name = f"__{'r' * reflected}{operation}__"
        setattr(SizeNumber, name, followed(name, operation, reflected=reflected))
SizeNumber.__neg__ = lambda number: 0 - number  # type: ignore[method-assign, assignment, return-value]


def follow_numbers(structure: Network, trace: Mark) -> None:
    """Replace the integers in the modules of a skeleton by ones that remember which attribute they are.

    Those of torch's own layers are set from their weights, or are no widths.
    """
    objects: dict[int, Any] = {}
    for path, module in structure.modules.items():
        if is_from_torch(type(module).__module__):
            if not module._modules:
                vars(module)["forward"] = unfollowed(module.forward)
            continue
        attributes = vars(module)
        skipped = KEEP_WEIGHTS_SIZES if isinstance(module, nn.Module) and module._parameters else ()
        for name, value in attributes.items():
            if name not in skipped:
                attributes[name] = numbered(value, path, name, trace, objects)


def unfollowed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of a layer of torch, of which no function is looked at: that would take a fifth of the trace."""
    # A layer that held its own method would be freed by the collector of garbage alone.
    found: Callable[[], Any] = weakref.WeakMethod(forward) if inspect.ismethod(forward) else (lambda: forward)

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return found()(*args, **kwargs)

    return run


def numbered(value: Any, module: str, path: str, trace: Mark, objects: dict[int, Any]) -> Any:
    """A value with its integers replaced: one integer, those of a list or tuple, or the fields of a dataclass.

    `objects` are the dataclasses that were replaced before, which modules may share.
    """
    kind = type(value)
    if kind is int:
        return SizeNumber.of(value, IntegerAttribute(module, path, value), trace)
    if kind in (list, tuple) and int in map(type, value):
        return kind(
            numbered(item, module, f"{path}.{place}", trace, objects) if type(item) is int else item
            for place, item in enumerate(value)
        )
    if dataclasses.is_dataclass(value) and not isinstance(value, type | nn.Module | torch.Tensor):
        if id(value) not in objects:
            new = copy.copy(value)
            for field in dataclasses.fields(value):
                held = numbered(getattr(value, field.name, None), module, f"{path}.{field.name}", trace, objects)
                if held is not getattr(value, field.name, None):
                    object.__setattr__(new, field.name, held)
            # The original is kept with it, so that its id stays its own.
            objects[id(value)] = (value, new)
        return objects[id(value)][1]
    return value


GIVEN_TO = frozenset(
    {
        "view",
        "reshape",
        "unflatten",
        "split",
        "split_with_sizes",
        "unsafe_split",
        "unsafe_split_with_sizes",
        "narrow",
        "pad",
        "__getitem__",
        *(f"conv{transposed}{axes}d" for transposed in ("", "_transpose") for axes in (1, 2, 3)),
    }
)
"""The functions of torch whose sizes are looked at."""

SHAPE: Any = torch.Tensor.shape.__get__  # type: ignore[attr-defined]


class SizesMode(TorchFunctionMode):
    """Hands the integers that a function of torch is given to the recorder, and follows the widths in shapes."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        if name in GIVEN_TO:
            return self.given(func, args, kwargs or {})
        result = func(*args, **(kwargs or {}))
        if name == "__get__" and func == SHAPE:
            return torch.Size(self.widths(args[0], result))
        if name == "size" and func is torch.Tensor.size:
            return self.sizes(args, kwargs or {}, result)
        return result

    def given(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call a function while the recorder knows the integers among its arguments."""
        numbers = tuple(integers_in((*args, *kwargs.values())))
        if func.__name__ == "narrow" and len(numbers) > 1:
            # It is a slice, up to where it ends.
            numbers += (numbers[-2] + numbers[-1],)
        self.recorder.given = numbers if any(type(number) is SizeNumber for number in numbers) else ()
        try:
            return func(*args, **kwargs)
        finally:
            self.recorder.given = ()

    def widths(self, tensor: torch.Tensor, shape: Iterable[int]) -> list[int]:
        """The sizes of a tensor, of which those of axes with channels remember these."""
        entry = self.recorder.tags.get(id(tensor))
        sizes = list(shape)
        if entry is None or len(entry[1].faces) != 1 or entry[0] is not tensor:
            return sizes
        face = entry[1].faces[0]
        for axis in varying_axes(face) if face.ndim == len(sizes) else ():
            first = face[tuple(slice(None) if other == axis else 0 for other in range(face.ndim))]
            sizes[axis] = SizeNumber.of(sizes[axis], Width(first), self.recorder.trace)
        return sizes

    def sizes(self, args: Any, kwargs: Any, result: Any) -> Any:
        """What `Tensor.size` returns: all sizes, or one."""
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        if isinstance(dim, int) and isinstance(result, int):
            return self.widths(args[0], args[0].shape)[dim]
        return torch.Size(self.widths(args[0], result)) if isinstance(result, torch.Size) else result


def integers_in(values: Iterable[Any]) -> Iterator[int]:
    """The integers among some arguments, those in lists and slices too."""
    for value in values:
        if isinstance(value, int):
            yield value
        elif isinstance(value, list | tuple):
            yield from integers_in(value)
        elif isinstance(value, slice):
            yield from integers_in((value.start, value.stop))
