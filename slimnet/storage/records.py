"""Strict reading of untrusted JSON and TOML into dataclasses: a value of another type than its field's is refused.

A field may be text, a number, a bool, a `Literal`, an enumeration, a tuple or list, a mapping with text as keys,
another dataclass, a union of these, or `Any` for plain data. `Annotated` adds `Within` or `NotEmpty`. Constraints
between several fields are checked by the dataclass, in `__post_init__`, with a `SlimnetError`.
"""

import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from slimnet.errors import SlimnetError
from slimnet.storage.field_types import UnfitError, reader_of, shown
from slimnet.storage.files import read_bytes

LIMIT_BYTES = 1 << 26
"""The largest file that is read, in bytes; parsed, it may take thirty times as much memory."""

T = TypeVar("T")
Failure = type[SlimnetError]


def parse_json(content: str | bytes, where: str, failure: Failure, advice: str = "") -> Any:
    """The plain data of JSON text; bytes are UTF-8.

    `where` begins the message of a failure, and `advice` ends it.

    Raises:
        failure: it is not JSON, or ambiguous JSON (NaN, a repeated key).
    """
    try:
        return json.loads(_decoded(content), parse_constant=_refuse_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise failure(f"{where} is not JSON: {_problem(error)}{_ending(advice)}") from error


def parse_toml(content: str | bytes, where: str, failure: Failure, advice: str = "") -> dict[str, Any]:
    """The tables of TOML text; otherwise as `parse_json`.

    Raises:
        failure: it is not TOML, or contains dates or numbers that JSON does not have.
    """
    try:
        tables = tomllib.loads(_decoded(content).replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:
        raise failure(f"{where} is not TOML: {_problem(error)}{_ending(advice)}") from error
    return build(dict[str, Any], tables, where, failure, advice=advice)


def build(
    kind: type[T], data: Any, where: str, failure: Failure, *, advice: str = "", others_ignored: bool = False
) -> T:
    """A value of `kind`, a dataclass or another type of a field, from plain data.

    `where` begins the message of a failure, and `advice` ends it. Unknown fields are refused, or with `others_ignored`
    ignored.

    Raises:
        failure: naming the invalid field.
    """
    try:
        value: T = reader_of(kind, others_ignored)(data)  # type: ignore[arg-type]  # a type is hashable
    except UnfitError as error:
        place = f"{where}: {error.field}" if error.trail else where
        raise failure(f"{place}{error.problem}{_ending(advice)}") from error
    return value


def from_json(
    kind: type[T],
    content: str | bytes,
    where: str,
    failure: Failure,
    *,
    advice: str = "",
    others_ignored: bool = False,
) -> T:
    """A value of `kind` from JSON text; see `parse_json` and `build`.

    Raises:
        failure: as for these.
    """
    data = parse_json(content, where, failure, advice)
    return build(kind, data, where, failure, advice=advice, others_ignored=others_ignored)


def read_json(path: Path, failure: Failure, advice: str = "") -> Any:
    """The plain data in a JSON file.

    Raises:
        failure: it cannot be read, or as for `parse_json`.
    """
    return parse_json(_content(path, failure, advice), str(path), failure, advice)


def read_toml(path: Path, failure: Failure, advice: str = "") -> dict[str, Any]:
    """The tables in a TOML file.

    Raises:
        failure: it cannot be read, or as for `parse_toml`.
    """
    return parse_toml(_content(path, failure, advice), str(path), failure, advice)


def read_record(kind: type[T], path: Path, failure: Failure, *, advice: str = "", others_ignored: bool = False) -> T:
    """A value of `kind` from a JSON file; see `build`.

    Raises:
        failure: it cannot be read, or holds no such value.
    """
    data = read_json(path, failure, advice)
    return build(kind, data, str(path), failure, advice=advice, others_ignored=others_ignored)


def _content(path: Path, failure: Failure, advice: str) -> bytes:
    try:
        return read_bytes(path, LIMIT_BYTES)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise failure(f"{path}: cannot be read ({problem}){_ending(advice)}") from error


def _decoded(content: str | bytes) -> str:
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark, which UTF-8 does without")
    return text


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is not a number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"it holds {shown(twice)} twice")
    return found


def _problem(error: Exception) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error)


def _ending(advice: str) -> str:
    return f"; {advice}" if advice else ""
