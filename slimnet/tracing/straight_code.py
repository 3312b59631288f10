"""Code that is sure to run as a whole: from one call to the next without a branch, and nothing else reads the result.

Where a forward depends on data, a run on example inputs shows one way through its code. What holds on every way is read
from the code itself: that one call follows another, that no other line reads the result, and that no other line names
the module.
"""

import dis
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from types import CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from torch import nn

from slimnet.modules.attributes import is_from_torch
from slimnet.tracing.source_line import is_internal

PASSING = frozenset({"CACHE", "EXTENDED_ARG", "KW_NAMES", "NOP", "PRECALL", "PUSH_NULL", "UNPACK_SEQUENCE"})
"""Instructions, besides loads, that store nothing anywhere."""

SUBSCRIPTS = frozenset({"BINARY_SUBSCR", "BINARY_OP"})

ENDS = frozenset(
    {
        "JUMP",
        "JUMP_BACKWARD",
        "JUMP_BACKWARD_NO_INTERRUPT",
        "JUMP_FORWARD",
        "RAISE_VARARGS",
        "RERAISE",
        "RETURN_CONST",
        "RETURN_VALUE",
    }
)
"""Instructions behind which code does not go on with the next one."""

READS_ALL = frozenset({"eval", "exec", "locals", "vars"})
"""Functions that may read any local variable."""


CodeWithNames = tuple[CodeType, dict[str, Any]]
"""The code of a function, and the global names that it sees."""


class Site(NamedTuple):
    """A call in the network's code: the code, and the offset of the instruction in it."""

    code: CodeType
    offset: int


def site_of(frame: FrameType | None) -> Site | None:
    """The call that a frame is at."""
    if frame is None:
        return None
    offsets = [each.offset for each in instructions(frame.f_code) if each.offset <= frame.f_lasti]
    return Site(frame.f_code, offsets[-1]) if offsets else None


@cache
def instructions(code: CodeType) -> tuple[dis.Instruction, ...]:
    """The instructions of some code, without the caches between them."""
    return tuple(dis.get_instructions(code))


def goes_straight(first: Site, then: Site) -> bool:
    """Whether what one call returns is passed to the next one whenever it runs, and is read nowhere else.

    Whether it is passed on at all is for the caller to see.
    """
    if first.code is not then.code:
        return False
    between = [each for each in instructions(first.code) if first.offset < each.offset <= then.offset]
    calls = sum(each.opname.startswith("CALL") for each in between)
    if calls != 1 or any(each.is_jump_target or not passes_on(each) for each in between):
        return False
    stored = {name for each in between for name in locals_of(each, "STORE")}
    if stored and not READS_ALL.isdisjoint(first.code.co_names):
        return False
    ways = [then.offset, *(target for each in between for target in handlers(first.code, each.offset))]
    return not any(is_read_from(first.code, ways, name) for name in stored)


def passes_on(each: dis.Instruction) -> bool:
    """Whether an instruction stores what it is given nowhere but in local variables."""
    name = each.opname
    if name in SUBSCRIPTS:
        return name == "BINARY_SUBSCR" or each.argrepr == "[]"
    return name in PASSING or name.startswith(("CALL", "LOAD_", "STORE_FAST"))


def locals_of(each: dis.Instruction, way: str) -> list[str]:
    """The local variables that an instruction loads or stores (`way` is "LOAD" or "STORE"); it may do both."""
    ways = re.findall("(LOAD|STORE)_FAST", each.opname)
    names: Any = each.argval if isinstance(each.argval, tuple) else [each.argval] * len(ways)
    return [name for name, found in zip(names, ways, strict=False) if found == way]


def is_read_from(code: CodeType, offsets: Iterable[int], name: str) -> bool:
    """Whether any way on from some instructions reads the value that a local variable has there."""
    listed = instructions(code)
    places = {each.offset: place for place, each in enumerate(listed)}
    waiting, seen = [places[offset] for offset in offsets if offset in places], set()
    while waiting:
        place = waiting.pop()
        while place < len(listed) and place not in seen:
            seen.add(place)
            each = listed[place]
            if name in locals_of(each, "LOAD"):
                return True
            waiting += [places[target] for target in handlers(code, each.offset) if target in places]
            if name in locals_of(each, "STORE"):
                break
            if each.opcode in dis.hasjrel or each.opcode in dis.hasjabs:
                waiting.append(places[each.argval])
            if each.opname in ENDS:
                break
            place += 1
    return False


def handlers(code: CodeType, offset: int) -> Iterator[int]:
    """Where code goes on if an instruction raises."""
    return (entry.target for entry in exception_table(code) if entry.start <= offset < entry.end)


@cache
def exception_table(code: CodeType) -> tuple[Any, ...]:
    """The ranges of some code with handlers of exceptions."""
    return tuple(dis.Bytecode(code).exception_entries)  # type: ignore[attr-defined]


class Called(NamedTuple):
    """What a call calls: a local variable or a global name (`is_global`), and the attributes that lead on from it."""

    root: str
    names: tuple[str, ...]
    is_global: bool


def called_at(site: Site) -> Called | None:
    """What a call calls, where the code says so itself; None where it may be something else each time."""
    found = [each for each in callable_code(site) if each.opname not in ("PUSH_NULL", "EXTENDED_ARG", "NOP")]
    if not found or found[0].opname not in ("LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_DEREF", "LOAD_GLOBAL"):
        return None
    root = found[0].argval
    stored = any(each.opname.startswith("STORE") and each.argval == root for each in instructions(site.code))
    plain = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_CONST", "LOAD_SMALL_INT", "BINARY_SUBSCR", "BINARY_OP")
    if stored or any(each.opname not in plain for each in found[1:]):
        return None
    names = tuple(each.argval for each in found[1:] if each.opname in ("LOAD_ATTR", "LOAD_METHOD"))
    return Called(root, names, found[0].opname == "LOAD_GLOBAL")


def last_name(site: Site) -> str:
    """The name of the function or method that a call calls; empty where a variable holds it."""
    found = [each for each in callable_code(site) if each.opname not in ("PUSH_NULL", "EXTENDED_ARG", "NOP")]
    return found[-1].argval if found and found[-1].opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_GLOBAL") else ""


def callable_code(site: Site) -> Sequence[dis.Instruction]:
    """The instructions that compute what a call calls; none where there is a branch in them, or in its arguments."""
    listed = instructions(site.code)
    call = next(each for each in listed if each.offset == site.offset)
    before = [each for each in listed if each.offset < site.offset]
    while before and before[-1].opname in ("PRECALL", "KW_NAMES", "EXTENDED_ARG"):
        before.pop()
    if call.opname != "CALL" or call.arg is None:
        return ()
    # It takes its arguments from the stack, and two values below them for what it calls.
    missing, depths = call.arg + 2, [0] * len(before)
    for place in reversed(range(len(before))):
        each = before[place]
        depths[place] = call.arg + 2 - missing
        missing -= dis.stack_effect(each.opcode, each.arg if each.opcode >= dis.HAVE_ARGUMENT else None, jump=False)
        if each.is_jump_target or each.opcode in dis.hasjrel or missing < 0:
            return ()
        if not missing:
            ends = [end for end in range(place, len(before)) if depths[end] == call.arg]
            return before[place : ends[-1] + 1]
    return ()


def mentions(codes: Iterable[CodeType], name: str) -> int:
    """How many places in some code name an attribute, other than to compare it with None."""
    found = 0
    for code in codes:
        found += sum(constant == name for constant in code.co_consts if isinstance(constant, str))
        listed = instructions(code) if name in code.co_names else ()
        plain = [each for each in listed if each.opname != "EXTENDED_ARG"]
        for place, each in enumerate(plain):
            named = each.opname.startswith(("LOAD_ATTR", "LOAD_METHOD")) and each.argval == name
            found += named and not compares_with_none(plain[place + 1 : place + 3])
    return found


def compares_with_none(following: Sequence[dis.Instruction]) -> bool:
    """Whether a value is compared with None by the next two instructions."""
    names = [each.opname for each in following]
    if names and names[0].endswith("_NONE"):
        return True
    return names == ["LOAD_CONST", "IS_OP"] and following[0].argval is None


def functions_of(module: nn.Module) -> Iterator[CodeWithNames]:
    """The code of all methods of a module's class other than torch's and `__init__`, and of its own functions."""
    for kind in type(module).__mro__:
        if not is_from_torch(kind.__module__) and kind is not object:
            for name, value in vars(kind).items():
                if name != "__init__":
                    yield from functions_in(value)
    for value in vars(module).values():
        yield from functions_in(value)


def functions_in(value: Any) -> Iterator[CodeWithNames]:
    """The code of a function, or of what is made of one."""
    if isinstance(value, property):
        for part in (value.fget, value.fset):
            yield from functions_in(part)
    elif isinstance(value, staticmethod | classmethod | MethodType):
        yield from functions_in(value.__func__)
    elif isinstance(value, FunctionType):
        yield value.__code__, value.__globals__
        yield from functions_in(vars(value).get("__wrapped__"))


def reachable_code(functions: Iterable[CodeWithNames]) -> set[CodeType]:
    """The code of some functions, of those within them, and of those of the network's own that they name."""
    waiting, seen = list(functions), set()
    while waiting:
        code, names = waiting.pop()
        if code in seen:
            continue
        seen.add(code)
        waiting += [(constant, names) for constant in code.co_consts if isinstance(constant, CodeType)]
        named = [names.get(each.argval) for each in instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
        inside = [vars(each).get(name) for each in named if isinstance(each, ModuleType) for name in code.co_names]
        for value in (*named, *inside):
            waiting += [found for found in functions_in(value) if is_own(*found)]
    return seen


def is_own(code: CodeType, names: dict[str, Any]) -> bool:
    """Whether a function is neither torch's, nor Python's, nor the trace's."""
    return not is_internal(names.get("__name__", ""), code.co_filename)
