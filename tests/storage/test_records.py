"""Records: what JSON and TOML from anywhere may hold, and the one line that refuses what they may not."""

import enum
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal

import pytest

from slimnet.errors import PlanError, UsageError
from slimnet.storage.field_types import Count, NotEmpty, Share, Size, reader_of
from slimnet.storage.records import (
    LIMIT_BYTES,
    build,
    from_json,
    parse_json,
    parse_toml,
    read_json,
    read_record,
    read_toml,
)


class Colour(enum.Enum):
    RED = "red"
    ONE = 1


@dataclass(frozen=True)
class Point:
    x: float
    y: float = 0.0


@dataclass(frozen=True)
class Record:
    name: str
    count: Count = 0
    share: Share = 0.5
    size: Size = 1
    flag: bool = False
    note: str | None = None
    filled: float = None  # type: ignore[assignment]
    kind: Literal["a", "b", 1] = "a"
    colour: Colour = Colour.RED
    pair: tuple[int, str] = (1, "x")
    many: tuple[float, ...] = ()
    some: Annotated[tuple[int, ...], NotEmpty()] = (1,)
    items: list[int] = field(default_factory=list)
    order: Sequence[int] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    either: Point | tuple[float, ...] | None = None
    free: Any = None

    def __post_init__(self) -> None:
        if len(self.order) > self.count:
            raise UsageError(f"{len(self.order)} are in order, of {self.count}")


VALID = {
    "name": "é",
    "count": 3,
    "share": 1,
    "flag": True,
    "kind": 1,
    "colour": "red",
    "pair": [2, "y"],
    "many": [1, 2.5],
    "some": [1],
    "items": [1],
    "order": [3, 1],
    "shapes": {"a": [1, 2]},
    "points": [{"x": 1}, {"x": 2, "y": 3.0}],
    "either": {"x": 1.5},
    "free": {"a": [1, None, {"b": True}], "c": 0.5},
}


def nested(depth: int) -> list:
    found: list = []
    for _ in range(depth):
        found = [found]
    return found


def test_what_is_as_it_should_be_is_read_with_the_types_of_its_fields():
    read = from_json(Record, json.dumps(VALID), "it", UsageError)
    assert read == Record(
        name="é", count=3, share=1.0, flag=True, kind=1, pair=(2, "y"), many=(1.0, 2.5), some=(1,), items=[1],
        order=(3, 1), shapes={"a": (1, 2)}, points=(Point(1.0), Point(2.0, 3.0)), either=Point(1.5),
        free=VALID["free"],
    )  # fmt: skip
    assert type(read.share) is type(read.many[0]) is float
    assert build(Record, {"name": "n", "either": [1, 2], "filled": None}, "it", UsageError).either == (1.0, 2.0)


WRONG = {
    "a number for text": ({"name": 3}, "name is 3; it must be text"),
    "half a character": ({"name": "\ud800"}, "whole characters"),
    "a negative count": ({"count": -1}, "count is -1; it must be at least 0 and below 2\\*\\*63"),
    "a count that no array has": ({"count": 2**63}, f"count is {2**63}; it must be at least 0 and below 2\\*\\*63"),
    "true for a number": ({"count": True}, "count is True"),
    "half a count": ({"count": 1.0}, "count is 1.0"),
    "a huge count": ({"count": 10**400}, "count is 1000"),
    "a huge number": ({"share": 10**400}, "share is 1000"),
    "more than all": ({"share": 1.5}, "share is 1.5; it must be between 0 and 1"),
    "infinite": ({"many": [1.0, float("inf")]}, r"many\[1\] is inf; it must be a finite number"),
    "a number for true": ({"flag": 1}, "flag is 1; it must be true or false"),
    "null": ({"flag": None}, "flag is None"),
    "a number for text or null": ({"note": 3}, "note is 3; it must be text or null"),
    "no choice": ({"kind": "c"}, "kind is 'c'; it must be one of a, b, 1"),
    "true for a choice": ({"kind": True}, "kind is True"),
    "a list for a choice": ({"kind": []}, r"kind is \[\]"),
    "no colour": ({"colour": "blue"}, "colour is 'blue'; it must be one of red, 1"),
    "true for a colour": ({"colour": True}, "colour is True"),
    "three for a pair": ({"pair": [1, "x", 2]}, "pair is .* a list of 2"),
    "text in a pair": ({"pair": ["1", "x"]}, r"pair\[0\] is '1'"),
    "text for a list": ({"many": "12"}, "many is '12'; it must be a list"),
    "nothing": ({"some": []}, "some is empty"),
    "a list for an object": ({"shapes": []}, r"shapes is \[\]; it must be an object"),
    "a wrong shape": ({"shapes": {"a": [1, "b"]}}, r"shapes\.a\[1\] is 'b'"),
    "deep in a record": ({"points": [{"x": 1}, {"x": "1"}]}, r"points\[1\]\.x is '1'"),
    "a field more": ({"points": [{"x": 1, "z": 1}]}, r"points\[0\] has no field 'z'; its fields are x, y"),
    "a field less": ({"points": [{"y": 1}]}, r"points\[0\] lacks 'x'"),
    "none of several": ({"either": "x"}, "either is 'x'; it must be an object or a list or null"),
    "deep in one of several": ({"either": {"x": "1"}}, r"either\.x is '1'"),
    "what does not agree": ({"order": [1]}, "1 are in order, of 0"),
    "nested": ({"free": nested(70)}, "free is nested more than 64 deep"),
    "nested beyond the stack": ({"name": nested(10**5)}, "name is .*; it must be text"),
    "nested freely beyond the stack": ({"free": nested(10**5)}, "free is nested"),
    "a date": ({"free": [date(2020, 1, 1)]}, "free is datetime.date"),
    "infinite and free": ({"free": {"a": float("nan")}}, "free is nan"),
    "half a character as a key": ({"free": {"\ud800": 1}}, "free is"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_what_is_not_is_refused_by_field(changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        build(Record, {"name": "n"} | changes, "it", UsageError, advice="make it again")
    assert str(caught.value).startswith("it: ")
    assert str(caught.value).endswith("; make it again")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("data", [None, [], 3, "text", [{"name": "n"}]])
def test_another_type_than_an_object_is_refused(data):
    with pytest.raises(UsageError, match=r"^it is .*; it must be an object$"):
        build(Record, data, "it", UsageError)


def test_fields_of_others_are_ignored_where_they_may_be():
    data = {"name": "n", "more": 1, "points": [{"x": 1, "more": nested(500)}]}
    assert build(Record, data, "it", UsageError, others_ignored=True).points == (Point(1.0),)


CONTENT = {
    "empty": (b"", "not JSON"),
    "cut short": (b'{"a": ', "not JSON"),
    "deep": (b"[" * 10**5, "nested too deep"),
    "deep objects": (b'{"a":' * 10**5, "nested too deep"),
    "not UTF-8": (b'{"a": "\xff"}', "can't decode byte 0xff"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "can't decode"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "byte order mark"),
    "not a number": (b'{"a": NaN}', "NaN, which is not a number"),
    "infinite": (b"[-Infinity]", "-Infinity"),
    "a key twice": (b'{"a": 1, "b": 2, "a": 3}', "'a' twice"),
    "more digits than Python reads": (b"[" + b"9" * 5000 + b"]", "not JSON"),
}


@pytest.mark.parametrize(("content", "message"), CONTENT.values(), ids=CONTENT)
def test_content_that_is_no_strict_json_is_one_line_about_the_file(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=message) as caught:
        read_json(path, PlanError, "make it again")
    assert str(caught.value).startswith(f"{path} is not JSON: ")
    assert str(caught.value).endswith("; make it again")
    assert "\n" not in str(caught.value)


TOML = {
    "no TOML": (b"[base", "not TOML"),
    "deep": (b"a = " + b"[" * 10**5, "nested too deep"),
    "deep but whole": (b"a = " + b"[" * 100 + b"]" * 100, "a is nested more than 64 deep"),
    "a date": (b"a = 2020-01-01", "a is datetime.date"),
    "infinite": (b"a = inf", "a is inf; it must be a finite number"),
    "huge": (b"a = 1" + b"0" * 100, "a is 1000"),
    "more digits than Python reads": (b"a = 1" + b"0" * 5000, "not TOML"),
    "not UTF-8": (b"a = '\xff'", "can't decode"),
    "a byte order mark": (b"\xef\xbb\xbfa = 1", "byte order mark"),
}


@pytest.mark.parametrize(("content", "message"), TOML.values(), ids=TOML)
def test_tables_that_json_could_not_hold_are_one_line_about_the_file(tmp_path, content, message):
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_toml(path, UsageError)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_tables_are_plain_data():
    assert parse_toml("a = [1, 'x']\r\n[b]\nc = true\n", "it", UsageError) == {"a": [1, "x"], "b": {"c": True}}


def test_files_that_are_none_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LIMIT_BYTES + 1)
    for name, said in {"none": "No such file", ".": "a folder", "pipe": "a named pipe", "large": "more than"}.items():
        with pytest.raises(UsageError, match=rf"cannot be read \(.*{said}"):
            read_record(Record, tmp_path / name, UsageError)


def test_text_of_one_digit_too_many_is_no_number_of_64_bits():
    """Oracle: the limits of two's complement."""
    for number in (-(2**63), 2**64 - 1):
        assert build(int, number, "it", UsageError) == number
        with pytest.raises(UsageError, match="a whole number of 64 bits"):
            build(int, number * 2, "it", UsageError)
    assert build(float, sys.float_info.max, "it", UsageError) == sys.float_info.max


def test_a_type_that_no_plain_data_can_become_is_a_mistake_of_the_programmer():
    with pytest.raises(TypeError, match="no plain data"):
        reader_of(set[int], False)


def test_where_it_is_may_be_said_in_words():
    assert parse_json("[1]", "the list", UsageError) == [1]
    with pytest.raises(UsageError, match=r"^the list is not JSON: "):
        parse_json("[", "the list", UsageError)
