"""check_text: every text in the description of a captured network must be of the kind that torch writes there.

slimnet generates no code from it, but `torch.export.load` does: names become parts of Python source, and sizes are
evaluated. A verified bundle may also be opened with torch; therefore texts that are no names or sizes are refused.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from slimnet.errors import BundleError
from slimnet.export.pt2.numbers import SYMBOL, is_size

LONGEST_NAME = 2000
LONGEST_NOTE = 2**16
"""The most characters of torch's record of the source code that a step comes from."""

DOTTED = re.compile(r"\w+(\.\w+)*", re.ASCII)
GUARDED = re.compile(r"\bL(\['[a-zA-Z_]\w*'\]|\[\d+\])+\.((size|stride)\(\)\[\d+\]|storage_offset\(\))", re.ASCII)
"""The size of an input, as it appears in the guards that torch checks before a program is run."""

VERSION = re.compile(r"[\w.+<=-]{1,100}", re.ASCII)
FLOATS = {"NaN", "Infinity", "-Infinity"}


def is_name(value: Any) -> bool:
    """Whether a value is an identifier of Python, or empty."""
    return isinstance(value, str) and len(value) <= LONGEST_NAME and (value.isidentifier() or not value)


def is_path(value: Any) -> bool:
    """Whether a value is the path of a parameter or module: printable, without characters that end a string literal."""
    return (
        isinstance(value, str)
        and len(value) <= LONGEST_NAME
        and value.isprintable()
        and not any(sign in value for sign in "\"'`\\{}()\N{LINE SEPARATOR}")
    )


def is_note(value: Any) -> bool:
    """Whether a value is one line of text, which is never part of source."""
    return isinstance(value, str) and len(value) <= LONGEST_NOTE and value.isprintable()


def is_guard(value: Any) -> bool:
    """Whether a value is a comparison of sizes of inputs, as in `L['x'].size()[0] == L['y'].size()[0]`."""
    return isinstance(value, str) and is_size(GUARDED.sub(" s0 ", value).strip())


def is_dotted(value: Any) -> bool:
    """Whether a value is names joined by dots."""
    return isinstance(value, str) and len(value) <= LONGEST_NAME and DOTTED.fullmatch(value) is not None


TEXTS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(["name", "as_name", "forward_arg_names", "verifiers", "type"], is_name),
    **dict.fromkeys(["parameter_name", "buffer_name", "tensor_constant_name", "fqn"], is_path),
    **dict.fromkeys(["as_string", "as_strings", "in_spec", "out_spec"], is_note),
    **dict.fromkeys(["target", "path_name"], is_dotted),
    **dict.fromkeys(["as_float", "as_floats", "real", "imag"], FLOATS.__contains__),
    "torch_version": lambda value: VERSION.fullmatch(value) is not None,
    "expr_str": is_size,
    "guards_code": is_guard,
}
"""The check of a text, by the field that contains it; other fields may contain no text."""

TABLES: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(["tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values"], is_name),
    "config": is_path,
    "metadata": is_name,
    "opset_version": is_name,
    "range_constraints": lambda value: SYMBOL.fullmatch(value) is not None,
}
"""The check of the keys of an object, by the field that contains it, if the keys are no fields themselves."""

NOTES = "metadata"
"""The table whose values are texts."""

FIELDS = {
    *TEXTS,
    *TABLES,
    *("model", "weights", "constants", "graph_module", "graph", "signature", "schema_version", "major", "minor"),
    *("module_call_graph", "inputs", "outputs", "nodes", "arg", "kind", "input_specs", "output_specs", "value"),
    *("user_input", "parameter", "buffer", "tensor_constant", "constant_input", "persistent"),
    *("user_output", "buffer_mutation", "parameter_mutation", "min_val", "max_val", "hint"),
    *("is_single_tensor_return", "is_hop_single_tensor_return", "is_param", "use_pickle", "tensor_meta"),
    *("dtype", "sizes", "requires_grad", "device", "strides", "storage_offset", "layout", "index"),
    *("as_none", "as_tensor", "as_tensors", "as_int", "as_ints", "as_bool", "as_bools", "as_complex", "as_expr"),
    *("as_sym_int", "as_sym_ints", "as_sym_float", "as_sym_floats", "as_sym_bool", "as_sym_bools"),
    *("as_scalar_type", "as_memory_format", "as_layout", "as_device", "as_graph"),
    *("as_optional_tensor", "as_optional_tensors"),
}
"""The supported fields of a program; others are refused unless they are empty, as in a file of a newer torch."""


def check_text(data: Any) -> None:
    """Refuse a description with a text that is not of the kind of its field.

    Raises:
        BundleError: naming the text, or the field that is not known.
    """
    waiting: list[tuple[str, Any]] = [("", data)]
    sizes: set[str] = set()
    while waiting:
        field, value = waiting.pop()
        if isinstance(value, list):
            waiting += [(field, each) for each in value]
        elif isinstance(value, dict):
            waiting += fields_of(field, value)
        elif isinstance(value, str) and value not in sizes:
            if (field not in TEXTS and field != NOTES) or not TEXTS.get(field, is_note)(value):
                raise BundleError(f"it has {value!r:.60} where {kind_of(field)} belongs")
            sizes |= {value} if field == "expr_str" else set()


def fields_of(field: str, entry: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The values in an object, each with the field that determines its check.

    Raises:
        BundleError: naming a key that is not valid.
    """
    found = []
    for key, value in entry.items():
        if field in TABLES:
            if not TABLES[field](key):
                raise BundleError(f"it has {key!r:.60} where a name belongs")
            found.append((NOTES if field == NOTES else "", value))
        elif key in FIELDS:
            found.append((key, value))
        elif value not in (None, False, [], {}, ""):
            raise BundleError(f"it has {key!r:.60}, which is not part of a program that is read")
    return found


def kind_of(field: str) -> str:
    """The kind of text that a field contains, in words."""
    if field == "expr_str":
        return "a size"
    if field == "guards_code":
        return "a comparison of sizes"
    return "a name" if TEXTS.get(field) in (is_name, is_path, is_dotted) else "another text or none"
