"""Program: a captured network read from its archive, which runs without generating code."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from slimnet.errors import BundleError
from slimnet.export.pt2.archive import DTYPES, Archive
from slimnet.export.pt2.budget import Budget
from slimnet.export.pt2.graph import Graph, Name, read_argument, read_graph, text
from slimnet.export.pt2.numbers import integer
from slimnet.export.pt2.text import check_text, is_name, is_path
from slimnet.modules.example_inputs import Inputs

SCHEMA = 8
"""The version of torch's schema of exported programs that is supported."""

CONTAINERS: Mapping[str, type] = {
    "builtins.tuple": tuple,
    "builtins.list": list,
    "builtins.dict": dict,
    "collections.OrderedDict": dict,
}
"""The containers of inputs and outputs: Python's own, for which nothing has to be imported."""

DEEPEST = 50
"""The largest nesting depth of containers."""


@dataclass(frozen=True)
class Container:
    """A container of inputs or outputs: its kind, its keys if it has any, and its parts (None for a value)."""

    kind: type
    keys: tuple[Any, ...]
    parts: tuple["Container | None", ...]

    def values_in(self, value: Any) -> list[Any]:
        """The values in a container of this form, in order.

        Raises:
            BundleError: it has another form.
        """
        if self.kind is dict:
            if not isinstance(value, dict) or value.keys() != set(self.keys):
                raise BundleError("it takes other names")
            items = [value[key] for key in self.keys]
        elif isinstance(value, tuple | list) and type(value) is self.kind and len(value) == len(self.parts):
            items = list(value)
        else:
            raise BundleError("it takes another number of inputs")
        found = []
        for part, item in zip(self.parts, items, strict=True):
            found += [item] if part is None else part.values_in(item)
        return found

    @property
    def size(self) -> int:
        """How many values are in it."""
        return sum(1 if part is None else part.size for part in self.parts)


@dataclass(frozen=True)
class Program:
    """A captured network: its graph, its tensors, and its inputs.

    `sources` are the sources of the graph's inputs: the name of a tensor, a constant, or None for an input of the
    network. `changes` are the tensors that a run writes into, each with the index of its new value among the outputs.
    `shapes` are, by name, the type of each input and its sizes, None where they are dynamic.
    """

    graph: Graph
    tensors: Mapping[str, torch.Tensor]
    sources: tuple["Source", ...]
    shapes: Mapping[str, tuple[torch.dtype, tuple[int | None, ...]]]
    container: Container
    changes: tuple[tuple[int, str], ...]

    def __call__(self, inputs: Inputs) -> list[torch.Tensor]:
        """Run the network without gradients; returns the tensors among its outputs, in order.

        Raises:
            BundleError: it takes other inputs, or needs more memory or work than a network of its size may.
            Exception: whatever an operator raises.
        """
        waiting = iter(self.container.values_in((inputs.args, inputs.kwargs)))
        values = []
        for place, source in zip(self.graph.inputs, self.sources, strict=True):
            if source.tensor is not None:
                values.append(self.tensors[source.tensor])
                continue
            value = next(waiting)
            self.check_input(place, value, source)
            values.append(value)
        outputs = self.graph.run(values, Budget(inputs.tensors, self.tensors.values()))
        for place, name in self.changes:
            self.tensors[name].copy_(outputs[place])
        return [each for each in outputs[len(self.changes) :] if isinstance(each, torch.Tensor)]

    def check_input(self, place: Any, value: Any, source: "Source") -> None:
        """Refuse an input of another shape or type than the network was captured with.

        Raises:
            BundleError: naming it.
        """
        if not isinstance(place, Name):
            if type(value) is not type(source.constant) or value != source.constant:
                raise BundleError(f"it was captured with {source.constant!r:.40}, not {value!r:.40}")
            return
        dtype, sizes = self.shapes[place.text]
        fits = isinstance(value, torch.Tensor) and value.dtype == dtype and value.ndim == len(sizes)
        if not fits or any(size not in (None, found) for size, found in zip(sizes, value.shape, strict=True)):
            raise BundleError(f"it takes another {place.text!r:.40}")


@dataclass(frozen=True)
class Source:
    """The source of a graph's input: a tensor of the program, or the call, which must pass `constant` if it is set."""

    tensor: str | None = None
    constant: Any = None


def read_program(archive: Archive) -> Program:
    """Read a captured network.

    Raises:
        BundleError: it is not a captured network, or does more than compute.
    """
    check_text({"model": archive.model, **archive.lists})
    check_form(archive.model)
    module = archive.model["graph_module"]
    signature = module["signature"]
    graph = read_graph(module["graph"])
    sources = tuple(
        read_source(spec, place) for spec, place in zip(signature["input_specs"], graph.inputs, strict=True)
    )
    tensors = {**archive.tensors["constants"], **archive.tensors["weights"]}
    container, returned = read_containers(module["module_call_graph"])
    changes = read_changes(signature["output_specs"], graph)
    used = [source.tensor for source in sources if source.tensor is not None]
    check_present([*used, *(name for _, name in changes)], tensors)
    asked = [place for place, source in zip(graph.inputs, sources, strict=True) if source.tensor is None]
    if container.size != len(asked) or returned.size != len(graph.outputs) - len(changes):
        raise BundleError("it takes or returns another number of values than its graph")
    shapes = {place.text: read_shape(module["graph"], place) for place in asked if isinstance(place, Name)}
    return Program(graph, tensors, sources, shapes, container, changes)


def check_form(model: Any) -> None:
    """Refuse a program in another version of the schema, or with a graph that returns no list.

    Raises:
        BundleError: saying which.
    """
    if model["schema_version"]["major"] != SCHEMA:
        raise BundleError("it was written by a torch that describes programs in another way")
    if model["graph_module"]["graph"].get("is_single_tensor_return"):
        raise BundleError("its graph returns no list of values")


def read_containers(calls: Any) -> tuple[Container, Container]:
    """The containers of a network's inputs and of its outputs.

    Raises:
        BundleError: calls within the network are described too, or a keyword is no name.
    """
    entry, *inner = calls
    if entry["fqn"] or any(each["signature"] for each in inner):
        raise BundleError("it describes calls inside the network")
    container, returned = (read_container(entry["signature"][field]) for field in ("in_spec", "out_spec"))
    if not all(is_name(key) for part in container.parts if part and part.kind is dict for key in part.keys):
        raise BundleError("it takes a keyword argument that is not a name")
    return container, returned


def check_present(names: Iterable[str], tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse a network that names tensors which it does not have.

    Raises:
        BundleError: naming the first.
    """
    for name in names:
        if name not in tensors:
            raise BundleError(f"it has no tensor {name!r:.60}")


def read_source(spec: Any, place: Any) -> Source:
    """The source of an input.

    Raises:
        BundleError: its kind is not supported, or it has another name in the graph.
    """
    ((kind, entry),) = spec.items()
    match kind:
        case "parameter":
            source, named = Source(text(entry["parameter_name"])), Name(entry["arg"]["name"])
        case "buffer":
            source, named = Source(text(entry["buffer_name"])), Name(entry["arg"]["name"])
        case "tensor_constant":
            source, named = Source(text(entry["tensor_constant_name"])), Name(entry["arg"]["name"])
        case "user_input":
            named = read_argument(entry["arg"])
            source = Source(constant=None if isinstance(named, Name) else named)
        case "constant_input":
            named = read_argument(entry["value"])
            source = Source(constant=named)
        case _:
            raise BundleError(f"it has an input of the kind {kind!r:.40}, which is not read")
    if named != place:
        raise BundleError("it has inputs of other names than its graph")
    return source


def read_changes(specs: Any, graph: Graph) -> tuple[tuple[int, str], ...]:
    """The tensors that a run writes into, which come before all other outputs.

    Raises:
        BundleError: it has outputs of other kinds, or of other names than its graph.
    """
    changes: list[tuple[int, str]] = []
    for place, (spec, output) in enumerate(zip(specs, graph.outputs, strict=True)):
        ((kind, entry),) = spec.items()
        match kind:
            case "user_output":
                named = read_argument(entry["arg"])
            case "buffer_mutation" | "parameter_mutation" if len(changes) == place:
                named = Name(entry["arg"]["name"])
                changes.append((place, text(entry[f"{kind.partition('_')[0]}_name"])))
            case _:
                raise BundleError(f"it has an output of the kind {kind!r:.40}, which is not read")
        if named != output:
            raise BundleError("it has outputs of other names than its graph")
    return tuple(changes)


def read_shape(graph: Any, place: Name) -> tuple[torch.dtype, tuple[int | None, ...]]:
    """The type and the fixed sizes of an input."""
    meta = graph["tensor_values"][place.text]
    sizes = tuple(integer(size["as_int"]) if "as_int" in size else None for size in meta["sizes"])
    return DTYPES[integer(meta["dtype"])], sizes


def read_container(description: Any) -> Container:
    """The containers of inputs or outputs.

    Raises:
        BundleError: one is none of Python's own.
    """
    try:
        version, tree = json.loads(text(description))
    except (ValueError, RecursionError) as error:
        raise BundleError("it takes or returns something that is not described") from error
    container = read_part(tree, 0) if version == 1 else None
    if container is None:
        container = Container(tuple, (), (None,))
    return container


def read_part(tree: Any, depth: int) -> Container | None:
    """A container, or None for a value.

    Raises:
        BundleError: its type is none of Python's own.
    """
    kind, parts = tree["type"], tree["children_spec"]
    if kind is None and not parts:
        return None
    if kind not in CONTAINERS or depth > DEEPEST:
        raise BundleError("it takes or returns a type that has to be imported")
    container = CONTAINERS[kind]
    keys = read_keys(tree, len(parts)) if container is dict else (None,) * len(parts)
    return Container(container, keys, tuple(read_part(each, depth + 1) for each in parts))


def read_keys(tree: Any, count: int) -> tuple[Any, ...]:
    """The keys of a dictionary with so many entries.

    Raises:
        BundleError: there are others, or one is neither a name nor a number.
    """
    keys = json.loads(text(tree["context"]))
    if not isinstance(keys, list) or len(keys) != count:
        raise BundleError("it takes or returns a container without its keys")
    for key in keys:
        if type(key) is not int and not is_path(key):
            raise BundleError("it takes or returns a container with keys that are not names")
    return tuple(keys)
