"""The types that a field of a record may have, and the reader that builds each from plain data."""

import dataclasses
import enum
import functools
import math
import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from slimnet.errors import SlimnetError

LIMIT_DEPTH = 64
"""The largest nesting depth of plain data."""

LEAST, MOST = -(2**63), 2**64 - 1
"""The range of integers: 64 bits, signed or unsigned."""

SHOWN = 60
"""The number of characters of a value or a name that a message contains."""

Reader = Callable[[Any], Any]


@dataclass(frozen=True)
class Within:
    """The smallest and the largest value of a field."""

    least: float = -math.inf
    most: float = math.inf


@dataclass(frozen=True)
class NotEmpty:
    """A field must not be empty."""


MOST_COUNTED = 2**63 - 1
"""The largest count that is read: what NumPy and torch index with is signed."""

Count = Annotated[int, Within(0, MOST_COUNTED)]
Size = Annotated[int, Within(1, MOST_COUNTED)]
Share = Annotated[float, Within(0, 1)]
Amount = Annotated[float, Within(0)]
Positive = Annotated[float, Within(sys.float_info.min)]


class UnfitError(Exception):
    """A value does not fit its field; `trail` is its path, from the outermost field."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.trail: list[str] = []

    @property
    def field(self) -> str:
        """The path of the value, such as `rows[3].macs`."""
        return "".join(self.trail).removeprefix(".")


@functools.cache
def reader_of(kind: Any, others_ignored: bool) -> Reader:
    """The function that builds a value of a type from plain data, or raises `UnfitError`.

    Raises:
        TypeError: fields of records cannot have this type.
    """
    if kind in PLAIN:
        return PLAIN[kind]
    if dataclasses.is_dataclass(kind):
        return functools.partial(_record, kind, others_ignored)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return functools.partial(_member, kind)
    if get_origin(kind) is Literal:
        return functools.partial(_choice, get_args(kind))
    return _reader_of_parts(kind, functools.partial(reader_of, others_ignored=others_ignored))


def _reader_of_parts(kind: Any, of: Callable[[Any], Reader]) -> Reader:
    """The reader of a composite type; `of` returns the readers of its parts.

    Raises:
        TypeError: fields of records cannot have this type.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return functools.partial(_bounded, of(arguments[0]), arguments[1:])
    if origin in (Union, UnionType):
        return functools.partial(_any_of, [of(each) for each in arguments], described(kind))
    if origin is tuple and arguments[-1] is not Ellipsis:
        return functools.partial(_fixed, [of(each) for each in arguments])
    if origin in (tuple, Sequence):
        return lambda value: tuple(_items(of(arguments[0]), value))
    if origin is list:
        return functools.partial(_items, of(arguments[0]))
    if origin in (dict, Mapping) and arguments[0] is str:
        return functools.partial(_mapping, of(arguments[1]))
    raise TypeError(f"no plain data can become {kind}")


def described(kind: Any) -> str:
    """A type in words, for messages."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return described(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(described, arguments)))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (tuple, list, Sequence):
        return LIST
    return NAMES.get(kind, OBJECT)


OBJECT, LIST = "an object", "a list"
NAMES: Mapping[Any, str] = {
    str: "text",
    int: "a whole number of 64 bits",
    float: "a finite number",
    bool: "true or false",
    NoneType: "null",
}


def _refused(value: Any, wanted: str) -> UnfitError:
    return UnfitError(f" is {shown(value)}; it must be {wanted}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _refused(value, NAMES[str])
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _refused(value, "text of whole characters") from error
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not LEAST <= value <= MOST:
        raise _refused(value, NAMES[int])
    return value


def _finite(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and LEAST <= value <= MOST:
        return float(value)
    raise _refused(value, NAMES[float])


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refused(value, NAMES[bool])
    return value


def _null(value: Any) -> None:
    if value is not None:
        raise _refused(value, NAMES[NoneType])


def _plain_data(value: Any) -> Any:
    """Plain data, checked to be nested at most `LIMIT_DEPTH` deep and to contain JSON values only."""
    layer = [value]
    for _ in range(LIMIT_DEPTH):
        inner: list[Any] = []
        for each in layer:
            if isinstance(each, Mapping):
                for name in each:
                    _text(name)
                inner += each.values()
            elif isinstance(each, list | tuple):
                inner += each
            else:
                _scalar(each)
        if not inner:
            return value
        layer = inner
    raise UnfitError(f" is nested more than {LIMIT_DEPTH} deep")


def _scalar(value: Any) -> None:
    if isinstance(value, str):
        _text(value)
    elif isinstance(value, float):
        _finite(value)
    elif value is not None and not isinstance(value, bool):
        _whole(value)


PLAIN: Mapping[Any, Reader] = {
    Any: _plain_data,
    str: _text,
    int: _whole,
    float: _finite,
    bool: _truth,
    NoneType: _null,
}


def _record(kind: Any, others_ignored: bool, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise _refused(value, OBJECT)
    readers, needed, nullable = _fields(kind, others_ignored)
    given = {}
    for name, item in value.items():
        if name in readers:
            given[name] = None if item is None and name in nullable else _inside(f".{name}", readers[name], item)
        elif not others_ignored:
            raise UnfitError(f" has no field {shown(name)}; its fields are {', '.join(readers)}")
    for name in needed:
        if name not in given:
            raise UnfitError(f" lacks {name!r}; its fields are {', '.join(readers)}")
    try:
        return kind(**given)
    except SlimnetError as error:
        raise UnfitError(f": {error}") from error


@functools.cache
def _fields(kind: Any, others_ignored: bool) -> tuple[dict[str, Reader], tuple[str, ...], frozenset[str]]:
    """The readers of a dataclass's fields, the required fields, and those with the default None, which may be null."""
    hints = get_type_hints(kind, include_extras=True)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    missing = dataclasses.MISSING
    return (
        {field.name: reader_of(hints[field.name], others_ignored) for field in fields},
        tuple(field.name for field in fields if field.default is missing and field.default_factory is missing),
        frozenset(field.name for field in fields if field.default is None),
    )


def _inside(step: str, reader: Reader, value: Any) -> Any:
    try:
        return reader(value)
    except UnfitError as error:
        error.trail.insert(0, step)
        raise


def _items(reader: Reader, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _refused(value, LIST)
    found: list[Any] = []
    try:
        # A plan has millions of numbers, so the position is computed only for an invalid one.
        for item in value:
            found.append(reader(item))
    except UnfitError as error:
        error.trail.insert(0, f"[{len(found)}]")
        raise
    return found


def _fixed(readers: Sequence[Reader], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or len(value) != len(readers):
        raise _refused(value, f"{LIST} of {len(readers)}")
    return tuple(
        _inside(f"[{number}]", reader, item) for number, (reader, item) in enumerate(zip(readers, value, strict=True))
    )


def _mapping(reader: Reader, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _refused(value, OBJECT)
    return {_text(name): _inside(f".{name:.{SHOWN}}", reader, item) for name, item in value.items()}


def _member(kind: type[enum.Enum], value: Any) -> enum.Enum:
    for each in kind:
        if type(each.value) is type(value) and each.value == value:
            return each
    raise _refused(value, f"one of {', '.join(str(each.value) for each in kind)}")


def _choice(choices: tuple[Any, ...], value: Any) -> Any:
    # True == 1, so that types are compared too.
    if not any(type(each) is type(value) and each == value for each in choices):
        raise _refused(value, f"one of {', '.join(map(str, choices))}")
    return value


def _any_of(readers: Sequence[Reader], wanted: str, value: Any) -> Any:
    """The value of the first type that fits; if none does, the error with the longest path is raised."""
    failures: list[UnfitError] = []
    for reader in readers:
        try:
            return reader(value)
        except UnfitError as error:
            failures.append(error)
    deepest = max(failures, key=lambda error: len(error.trail))
    raise deepest if deepest.trail else _refused(value, wanted)


def _bounded(reader: Reader, bounds: tuple[Any, ...], value: Any) -> Any:
    found = reader(value)
    for bound in bounds:
        if isinstance(bound, NotEmpty) and not found:
            raise UnfitError(" is empty")
        if isinstance(bound, Within) and not bound.least <= found <= bound.most:
            raise _refused(value, _range(bound))
    return found


def _range(bound: Within) -> str:
    if bound.most == math.inf:
        return f"at least {bound.least:g}"
    if bound.most == MOST_COUNTED:
        return f"at least {bound.least:g} and below 2**63"
    return f"between {bound.least:g} and {bound.most:g}"


def shown(value: Any) -> str:
    """A value in a message; `repr` alone would not limit depth and length."""
    text = reprlib.repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
