"""check_program: nothing in a .pt2 file that torch would unpickle, import, evaluate or call but operators on tensors.

`torch.export.load` trusts its file: it unpickles, evaluates expressions, and calls whatever function of torch's
modules a node names. A bundle may come from anywhere, so its program is read first, by the reader that torch uses.
"""

import ast
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import torch

from slimnet.errors import BundleError

RECORDS = re.compile(
    r"data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|models/model\.json"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
)
"""What a program without pickles and compiled code consists of."""

SAMPLES = "data/sample_inputs/model.pt"
"""Example inputs, which torch would unpickle; `capture` leaves them out."""

TARGETS = re.compile(
    r"torch\.ops\.(aten|torchvision)\.(?!(from_file|save|load)\b)\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.wrap_with_(autocast|set_grad_enabled)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|getitem|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|torch\.sym_\w+|math\.(ceil|floor|trunc|sqrt)"
)
"""What a graph may call: operators on tensors and numbers, none of which reads or writes a file."""

FUNCTIONS = (
    "Symbol Integer Rational Float Add Mul Pow Max Min Abs And Or Not Equality Unequality StrictLessThan LessThan "
    "StrictGreaterThan GreaterThan FloorDiv ModularIndexing Where PythonMod Mod CleanDiv CeilToInt FloorToInt CeilDiv "
    "PowByNatural FloatPow FloatTrueDiv IntTrueDiv TruncToFloat TruncToInt RoundToInt ToFloat Identity"
)
"""What an expression for a size may call."""

ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Name, ast.Load),
    *(ast.operator, ast.unaryop, ast.cmpop, ast.keyword),
)
LONGEST = 2000
"""The most characters that an expression for a size may have."""


def check_program(content: bytes) -> None:
    """Refuse a .pt2 file that does more than compute.

    Raises:
        BundleError: naming what it holds.
    """
    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    records = reader.get_all_records()
    for name in records:
        if not RECORDS.fullmatch(name) or records.count(name) > 1:
            raise BundleError(f"it holds {name!r:.60}, which is no part of a captured network")
    if SAMPLES in records and reader.get_record(SAMPLES):
        raise BundleError("it holds pickled example inputs")
    for name in records:
        if name.endswith(".json"):
            for entry in objects_in(json.loads(reader.get_record(name))):
                check_entry(entry)


def objects_in(data: Any) -> Iterator[dict[str, Any]]:
    """Every object in JSON data, however deep it is nested."""
    waiting = [data]
    while waiting:
        match waiting.pop():
            case dict() as entry:
                yield entry
                waiting += entry.values()
            case list() as items:
                waiting += items


def check_entry(entry: dict[str, Any]) -> None:
    """Refuse an object that makes torch do more than compute.

    Raises:
        BundleError: naming it.
    """
    if entry.get("use_pickle") or "as_custom_obj" in entry:
        raise BundleError("it holds a pickle")
    for name in ("in_spec", "out_spec"):
        if isinstance(entry.get(name), str) and not is_plain_container(entry[name]):
            raise BundleError("it takes or returns a type that has to be imported")
    called = [entry["as_operator"]] if "as_operator" in entry else []
    called += [node.get("target") for node in entry.get("nodes") or () if isinstance(node, dict)]
    for target in called:
        if not (isinstance(target, str) and TARGETS.fullmatch(target)):
            raise BundleError(f"it calls {target!r:.60}, which is no operator on tensors")
    if "expr_str" in entry and not is_arithmetic(entry["expr_str"]):
        raise BundleError(f"it has {entry['expr_str']!r:.60} for a size")


def is_plain_container(spec: str) -> bool:
    """Whether a description of nested containers has no object in it, by which torch would import a class."""
    return not any("{" in str(part.get("context")) for part in objects_in(json.loads(spec)))


def is_arithmetic(text: Any) -> bool:
    """Whether a text is an expression of numbers, symbols and the functions that torch writes sizes with."""
    if not isinstance(text, str) or len(text) > LONGEST:
        return False
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in nodes:
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in FUNCTIONS.split():
                pass
            case ast.Constant(value=bool() | int() | float()):
                pass
            case ast.Constant(value=str() as name) if re.fullmatch(r"\w{1,40}", name):
                pass
            case _ if not isinstance(node, ARITHMETIC):
                return False
    return True
