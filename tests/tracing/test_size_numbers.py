"""Integers that remember where they come from, while a forward is traced.

Oracle: Python's own integers, and what torch does with them.
"""

import copy
import math
import pickle
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from wiring import double, planes

from slimnet.graph.sizes import IntegerAttribute, attributes_of, evaluate
from slimnet.modules.network import Network
from slimnet.tracing.size_numbers import LONGEST_FORMULA, SizeNumber, follow_numbers
from slimnet.tracing.trace import trace

TRACE = object()
A, B = IntegerAttribute("", "a", 12), IntegerAttribute("", "b", 5)
SUMS = st.recursive(
    st.sampled_from(["a", "b", "3", "7"]),
    lambda parts: st.tuples(st.sampled_from(["+", "-", "*", "//"]), parts, parts).map(
        lambda each: f"({each[1]} {each[0]} {each[2]})"
    ),
    max_leaves=6,
)


def number(attribute: IntegerAttribute, trace: object = TRACE) -> SizeNumber:
    return SizeNumber.of(attribute.value, attribute, trace)


@settings(deadline=None, derandomize=True, database=None)
@given(text=SUMS, a=st.integers(1, 30), b=st.integers(1, 30))
def test_a_formula_has_the_value_that_python_computes_with_other_numbers(text, a, b):
    def computed(**values: int) -> int | None:
        try:
            return eval(text, {}, values)
        except ZeroDivisionError:
            return None

    found = computed(a=number(A), b=number(B))
    if found is None:
        return
    assert found == computed(a=A.value, b=B.value)
    if isinstance(found, SizeNumber):
        assert evaluate(found.size, {A: a, B: b}, len) == computed(a=a, b=b)
        assert attributes_of(found.size) <= {A, B}
    else:
        assert "a" not in text
        assert "b" not in text


def test_what_is_no_integer_any_more_and_what_another_trace_made_is_not_followed():
    assert type(number(A) / 2) is float
    assert type(number(A) * 0.5) is float
    assert [0] * number(B) == [0, 0, 0, 0, 0]
    assert (number(A) + number(B, object())).size == ("add", A, 5)
    assert attributes_of((2 - number(A)).size) == {A}
    assert (-number(A)).size == ("sub", 0, A)
    assert math.prod([number(A), 2]) == 24


def test_a_number_that_is_counted_up_forgets_where_it_began():
    counted = number(A)
    for _ in range(LONGEST_FORMULA + 1):
        counted += 1
    assert counted == A.value + LONGEST_FORMULA + 1
    assert type(counted) is int


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_a_copy_is_a_plain_integer(again):
    assert type(again(number(A))) is int


@dataclass(frozen=True)
class Setting:
    """What a module may hold."""

    width: int
    name: str


class Holder(nn.Module):
    """Integers of every kind of attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.flag, self.sizes, self.mixed = 3, True, [1, 2], (4, "x", None)
        self.setting, self.text = Setting(7, "y"), "z"
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def test_integers_in_lists_tuples_and_dataclasses_are_followed_and_nothing_else_is():
    model = Holder()
    setting = model.setting
    follow_numbers(Network.of(model), TRACE)
    found = [model.width, *model.sizes, model.mixed[0], model.setting.width]
    paths = ["width", "sizes.0", "sizes.1", "mixed.0", "setting.width"]
    assert [each.size for each in found] == [("", path, int(each)) for path, each in zip(paths, found, strict=True)]
    assert model.flag is True
    assert model.mixed[1:] == ("x", None)
    assert setting == Setting(7, "y")
    assert type(setting.width) is int
    assert type(model.conv.out_channels) is int


class Cached(nn.Module):
    """Keeps a number that a trace gave it where other networks find it."""

    kept: ClassVar[list[int]] = []

    def __init__(self, c: int):
        super().__init__()
        self.c, self.conv = c, nn.Conv2d(2, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept.append(self.c)
        return torch.cat(self.conv(x).split(self.kept[0], 1), 1)


def test_numbers_that_an_earlier_trace_left_behind_are_plain():
    Cached.kept.clear()
    first, second = double(Cached(4)), double(Cached(4))
    assert [use.size for use in trace(first, planes()).uses] == [("", "c", 4)] * 2
    assert not trace(second, planes()).uses


class Exact(nn.Module):
    """Does not take a subclass of int for one."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.conv = 4, nn.Conv2d(2, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if type(self.c) is not int:
            raise TypeError("an int is wanted")
        return torch.cat(self.conv(x).split(self.c, 1), 1)


def test_a_network_that_refuses_such_integers_is_traced_without():
    graph = trace(double(Exact()), planes())
    assert not graph.uses
    assert graph.layers
