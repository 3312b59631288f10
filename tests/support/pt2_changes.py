"""Exported programs (model.pt2) taken apart, changed in one place or another, and packed again."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

MODEL, WEIGHTS, CONSTANTS = (
    "archive/models/model.json",
    "archive/data/weights/model_weights_config.json",
    "archive/data/constants/model_constants_config.json",
)
SAMPLES = "archive/data/sample_inputs/model.pt"
PICKLE = b"cos\nsystem\n(S'touch executed'\ntR."
"""A pickle that runs a command."""

CODE = "__import__('pathlib').Path('executed').touch()"
PAYLOADS = (
    CODE,
    f"x={CODE}",
    f"x={CODE}):\n    '''\n    #",
    f"x, y={CODE}",
    f"x\n    {CODE}\n    #",
    f'x"), {CODE}, ("',
    f"x'), {CODE}, ('",
    f"x', {CODE}) #",
    "os.system",
    "torch.serialization.os.system",
    "9**9**9",
    "../../executed",
    "",
)
"""Texts that run a command where they are pasted into source, and others that are no names."""


def archived(content: bytes) -> dict[str, bytes]:
    """The files of an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def rewritten(content: bytes, changes: dict) -> bytes:
    """An archive with some of its files changed (by a function of what they hold) or added."""
    files = archived(content)
    for name, change in changes.items():
        if callable(change):
            document = json.loads(files[name])
            change(document)
            change = json.dumps(document).encode()
        files[name] = change
    return packed(files)


def places(value: Any, place: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Every value in JSON data with the way to it."""
    if place:
        yield place, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*place, key))


def at(document: Any, place: tuple) -> Any:
    """The value at the end of a way."""
    for key in place:
        document = document[key]
    return document


def replaced(document: Any, place: tuple, value: Any) -> None:
    """Put another value at the end of a way."""
    at(document, place[:-1])[place[-1]] = value


def everywhere(field: str, value: Any) -> Callable[[Any], None]:
    """Replaces every value of a field that holds text."""

    def change(document: Any) -> None:
        found = [place for place, held in places(document) if place[-1] == field and isinstance(held, str)]
        assert found
        for place in found:
            replaced(document, place, value)

    return change


def renamed(old: str, new: str) -> Callable[[Any], None]:
    """Replaces a text wherever it is a value or a key, so that everything still fits together."""

    def change(document: Any) -> None:
        text = json.dumps(document)
        assert json.dumps(old) in text
        document.clear()
        document.update(json.loads(text.replace(json.dumps(old), json.dumps(new))))

    return change


def graph(document: Any) -> Any:
    return document["graph_module"]["graph"]


def nodes(document: Any) -> list:
    return graph(document)["nodes"]


def call(target: str, **arguments: Any) -> Callable[[Any], None]:
    """Makes the first step call something else."""

    def change(document: Any) -> None:
        given = arguments or {"command": {"as_string": "touch executed"}}
        nodes(document)[0].update(
            target=target, inputs=[{"name": name, "arg": arg, "kind": 1} for name, arg in given.items()]
        )

    return change


def argument(**kinds: Any) -> Callable[[Any], None]:
    """Gives the first step one argument more."""
    return lambda document: nodes(document)[0]["inputs"].append({"name": "f", "arg": kinds, "kind": 1})


def size(expression: str) -> Callable[[Any], None]:
    return everywhere("expr_str", expression)


def payload(name: str, **fields: Any) -> Callable[[Any], None]:
    """Lists one tensor more."""

    def change(document: Any) -> None:
        document["config"][name] = {"path_name": "weight_0", "is_param": False, "tensor_meta": None} | fields

    return change


def tensor(**fields: Any) -> Callable[[Any], None]:
    """Changes the description of the first tensor."""

    def change(document: Any) -> None:
        next(iter(document["config"].values()))["tensor_meta"].update(fields)

    return change


def ints(*sizes: int) -> list:
    return [{"as_int": size} for size in sizes]


def signature(**fields: Any) -> Callable[[Any], None]:
    return lambda document: document["graph_module"]["module_call_graph"][0]["signature"].update(fields)


def keyword(name: str) -> str:
    """Inputs that are given by this name."""
    leaf = {"type": None, "context": None, "children_spec": []}
    nothing = {"type": "builtins.tuple", "context": "null", "children_spec": []}
    named = {"type": "builtins.dict", "context": json.dumps([name]), "children_spec": [leaf]}
    return json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": [nothing, named]}])


def metadata(**notes: str) -> Callable[[Any], None]:
    return lambda document: nodes(document)[0]["metadata"].update(notes)


def region(document: Any) -> None:
    """A graph inside the graph, under a name that is code."""
    inner = {"inputs": [], "outputs": [], "nodes": [], "tensor_values": {}, "sym_int_values": {}, "sym_bool_values": {}}
    given = [{"as_bool": False}, {"as_graph": {"name": PAYLOADS[1], "graph": inner}}]
    nodes(document)[0].update(
        target="torch.ops.higher_order.wrap_with_set_grad_enabled",
        inputs=[{"name": "", "arg": arg, "kind": 1} for arg in given],
    )


def power(document: Any) -> None:
    """9**9**9 by the steps of the graph."""
    step = {"target": "_operator.pow", "metadata": {}}
    nodes(document)[:0] = [
        step
        | {
            "inputs": [{"name": "a", "arg": {"as_int": 9}, "kind": 1}, {"name": "b", "arg": by, "kind": 1}],
            "outputs": [{"as_sym_int": {"as_name": name}}],
        }
        for name, by in (("first", {"as_int": 9}), ("second", {"as_sym_int": {"as_name": "first"}}))
    ]
