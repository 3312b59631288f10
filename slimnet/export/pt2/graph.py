"""Graph: the steps of a captured network, read from JSON and run one after the other.

The file leads to lookups only: a step calls one of the permitted operators, with numbers from the file and values that
were computed before, each looked up by its name in a dictionary.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from slimnet.errors import BundleError
from slimnet.export.pt2.archive import DTYPES, STRIDED
from slimnet.export.pt2.budget import Budget
from slimnet.export.pt2.numbers import SCALARS, bounded, compute, integer
from slimnet.export.pt2.operators import find_operator

AUTOCAST = "torch.ops.higher_order.wrap_with_autocast"

REGIONS = {AUTOCAST: 4, "torch.ops.higher_order.wrap_with_set_grad_enabled": 1}
"""Calls that run a nested graph, with the number of their leading settings; gradients are always off."""

POSITIONAL = 1
"""The encoding of a positional argument in an exported program."""

DEEPEST = 8
"""The largest nesting depth of graphs."""

MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}

WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""Numbers that JSON cannot represent."""

Environment = dict[str, Any]
"""The values that a graph has computed so far, by name."""


@dataclass(frozen=True)
class Name:
    """A reference to a value that was computed before."""

    text: str


@dataclass(frozen=True)
class Step:
    """One call: its function, its arguments, and the names of its results; values in `done` are not read again."""

    target: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: tuple[Any, ...]
    done: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """Steps in order, the names of the inputs, and the outputs."""

    inputs: tuple[Any, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Any, ...]

    def run(self, values: Sequence[Any], budget: Budget) -> list[Any]:
        """Compute the outputs from the inputs, without gradients.

        Raises:
            BundleError: it would take more than the budget.
            Exception: whatever an operator raises.
        """
        known = {place.text: value for place, value in zip(self.inputs, values, strict=True) if isinstance(place, Name)}
        for step in self.steps:
            bind(step.results, called(step, known, budget), known, budget)
            for name in step.done:
                budget.release(known.pop(name))
        outputs = [filled(each, known) for each in self.outputs]
        for step in self.steps:
            for name in names_in(step.results):
                budget.release(known.get(name))
        return outputs


def read_graph(data: Any, depth: int = 0) -> Graph:
    """Read a graph.

    Raises:
        BundleError: it calls something that is not permitted, computes a name twice, or reads an unknown name.
    """
    if depth > DEEPEST:
        raise BundleError(f"it has more than {DEEPEST} graphs inside each other")
    inputs = [read_argument(each) for each in data["inputs"]]
    outputs = [read_argument(each) for each in data["outputs"]]
    calls = [read_call(node, depth) for node in data["nodes"]]
    known, last = set(names_in(inputs)), {}
    for place, (_, args, kwargs, results) in enumerate(calls):
        check_known(names_in([args, list(kwargs.values())]), known)
        for name in names_in(results):
            if name in known:
                raise BundleError(f"it computes {name!r:.60} twice")
            known.add(name)
            last[name] = place
        last |= {name: place for name in names_in([args, list(kwargs.values())]) if name in last}
    check_known(names_in(outputs), known)
    done: list[list[str]] = [[] for _ in calls]
    for name in last.keys() - set(names_in(outputs)):
        done[last[name]].append(name)
    steps = [Step(*call, tuple(names)) for call, names in zip(calls, done, strict=True)]
    return Graph(tuple(inputs), tuple(steps), tuple(outputs))


def check_known(names: Iterator[str], known: set[str]) -> None:
    """Refuse a name for which no value was computed.

    Raises:
        BundleError: naming it.
    """
    for name in names:
        if name not in known:
            raise BundleError(f"it reads {name!r:.60} before it is computed")


Call = tuple[str, tuple[Any, ...], dict[str, Any], tuple[Any, ...]]
"""The target, arguments and results of a step."""


def read_call(node: Any, depth: int) -> Call:
    """Read the target and the arguments of a node.

    Raises:
        BundleError: the target is not permitted, or its arguments are not valid.
    """
    target, given = node["target"], node["inputs"]
    results = tuple(read_argument(each) for each in node["outputs"])
    if not isinstance(target, str):
        raise BundleError("it calls what has no name")
    if target in SCALARS:
        return target, tuple(read_argument(each["arg"]) for each in given), {}, results
    if target in REGIONS:
        return target, read_region(target, [each["arg"] for each in given], depth), {}, results
    return target, *read_operands(find_operator(target), given), results


def read_operands(operator: torch._ops.OpOverload, given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments in the order of an operator's schema.

    Raises:
        BundleError: one is unknown, given twice, or out of order.
    """
    named = {each["name"]: each for each in given}
    schema = [argument.name for argument in operator._schema.arguments]
    if len(named) != len(given) or not named.keys() <= set(schema):
        raise BundleError(f"it calls {operator} with arguments that it does not take")
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for place, argument in enumerate(operator._schema.arguments):
        if argument.name not in named:
            continue
        value = read_argument(named[argument.name]["arg"])
        if place == len(args) and not argument.kwarg_only:
            args.append(value)
        elif named[argument.name].get("kind") == POSITIONAL:
            raise BundleError(f"it calls {operator} without an argument that it needs")
        else:
            kwargs[argument.name] = value
    return tuple(args), kwargs


def read_region(target: str, given: list[Any], depth: int) -> tuple[Any, ...]:
    """The settings of a region, its graph, and the inputs of the graph.

    Raises:
        BundleError: they are something else.
    """
    settings = REGIONS[target]
    if len(given) <= settings or "as_graph" not in given[settings]:
        raise BundleError(f"it calls {target} without a graph")
    graph = read_graph(given[settings]["as_graph"]["graph"], depth + 1)
    rest = [read_argument(each) for each in given[settings + 1 :]]
    if len(rest) != len(graph.inputs) or not all(isinstance(each, Name) for each in graph.inputs):
        raise BundleError(f"it calls {target} with other inputs than its graph has")
    return (*(read_argument(each) for each in given[:settings]), graph, *rest)


def read_argument(data: Any) -> Any:
    """One argument: a name, a plain value, or a list of these.

    Raises:
        BundleError: it is something else.
    """
    ((kind, value),) = data.items()
    if kind not in ARGUMENTS:
        raise unread(kind)
    return ARGUMENTS[kind](value)


def unread(kind: str) -> BundleError:
    """The error for an argument of an unsupported kind."""
    return BundleError(f"it has an argument of the kind {kind!r:.40}, which is not read")


def read_name(tensor: Any) -> Name:
    """The name of a tensor."""
    return Name(text(tensor["name"]))


def read_layout(value: Any) -> torch.layout:
    """The layout of dense tensors.

    Raises:
        BundleError: it is another one.
    """
    if value != STRIDED:
        raise unread("as_layout")
    return torch.strided


def read_device(value: Any) -> torch.device:
    """The CPU, on which networks are captured.

    Raises:
        BundleError: it is another device.
    """
    if value["type"] != "cpu" or value["index"] is not None:
        raise unread("as_device")
    return torch.device("cpu")


def list_of(read: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    """The reader of a list, each item of which `read` reads."""
    return lambda values: [read(each) for each in values]


def text(value: Any) -> str:
    """Check that a value is a text.

    Raises:
        BundleError: it is something else.
    """
    if not isinstance(value, str):
        raise BundleError("it has something else where a text belongs")
    return value


def flag(value: Any) -> bool:
    """Check that a value is a bool.

    Raises:
        BundleError: it is something else.
    """
    if not isinstance(value, bool):
        raise BundleError("it has something else where a truth value belongs")
    return value


def real(value: Any) -> float:
    """A float; torch writes infinity and NaN as words.

    Raises:
        BundleError: it is something else.
    """
    if isinstance(value, str) and value in WORDS:
        return WORDS[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BundleError("it has something else where a number belongs")
    return float(value)


ARGUMENTS: Mapping[str, Callable[[Any], Any]] = {
    "as_none": lambda _: None,
    "as_tensor": read_name,
    "as_tensors": list_of(read_name),
    "as_name": lambda value: Name(text(value)),
    "as_int": integer,
    "as_ints": list_of(integer),
    "as_float": real,
    "as_floats": list_of(real),
    "as_bool": flag,
    "as_bools": list_of(flag),
    "as_string": text,
    "as_strings": list_of(text),
    "as_complex": lambda value: complex(real(value["real"]), real(value["imag"])),
    "as_scalar_type": lambda value: DTYPES[integer(value)],
    "as_memory_format": lambda value: MEMORY_FORMATS[integer(value)],
    "as_layout": read_layout,
    "as_device": read_device,
    **dict.fromkeys(["as_optional_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"], read_argument),
    **dict.fromkeys(["as_optional_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools"], list_of(read_argument)),
}
"""How an argument of each kind is read."""


def names_in(value: Any) -> Iterator[str]:
    """The names in arguments, nested ones included."""
    if isinstance(value, Name):
        yield value.text
    elif isinstance(value, list | tuple):
        for each in value:
            yield from names_in(each)


def filled(value: Any, known: Environment) -> Any:
    """An argument with its names replaced by their values."""
    if isinstance(value, Name):
        return known[value.text]
    return [filled(each, known) for each in value] if isinstance(value, list) else value


def called(step: Step, known: Environment, budget: Budget) -> Any:
    """The result of a step."""
    args = [filled(each, known) for each in step.args]
    if step.target in SCALARS:
        return compute(step.target, args)
    if step.target in REGIONS:
        return run_region(step.target, args, budget)
    operator, kwargs = find_operator(step.target), {name: filled(each, known) for name, each in step.kwargs.items()}
    budget.check(operator, args, kwargs)
    return operator(*args, **kwargs)


def run_region(target: str, args: list[Any], budget: Budget) -> list[Any]:
    """Run a nested graph, under the autocast settings of its region."""
    settings = REGIONS[target]
    graph, values = args[settings], args[settings + 1 :]
    if target == AUTOCAST and args[0] == "cpu":
        with torch.autocast("cpu", dtype=args[1], enabled=args[2], cache_enabled=args[3]):
            return graph.run(values, budget)
    return graph.run(values, budget)


def bind(results: tuple[Any, ...], value: Any, known: Environment, budget: Budget) -> None:
    """Store the results of a step under their names.

    Raises:
        BundleError: there is another number of names than of results.
    """
    found = value if len(results) > 1 or isinstance(value, list | tuple) else [value]
    if len(results) == 1 and isinstance(results[0], list):
        results = tuple(results[0])
    if not isinstance(found, list | tuple) or len(found) != len(results):
        if not any(names_in(results)):
            return
        raise BundleError("it names other results than its operators return")
    for place, each in zip(results, found, strict=True):
        if isinstance(place, list):
            bind(tuple(place), each, known, budget)
        elif isinstance(place, Name):
            known[place.text] = each if isinstance(each, torch.Tensor) else bounded(each)
            budget.hold(each)
