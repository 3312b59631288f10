"""What is read from code: that one call hands its result to the next one, whatever happens, and to nothing else."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from slimnet.tracing.straight_code import Site, goes_straight, instructions, mentions, reachable_code


def in_a_row(model, x):
    found = model.first(x)
    found = model.second(found)
    left, right = model.third(found)
    return left, right


def nested(model, x):
    return model.third(model.second(model.first(x).relu())[0])


def in_a_loop(model, x):
    for _ in range(3):
        found = model.first(x)
        x = model.second(found)
    return x


def read_again(model, x):
    found = model.first(x)
    result = model.second(found)
    if result is None:
        return found
    return result


def read_in_the_next_round(model, x):
    found = x
    while model.goes_on(found):
        found = model.first(x)
        x = model.second(found)
    return x


def read_after_an_error(model, x):
    found = model.first(x)
    try:
        return model.second(found)
    except ValueError:
        return found


def in_a_branch(model, x):
    found = model.first(x)
    if x is None:
        found = model.other(found)
    return model.second(found)


def stored(model, x):
    model.found = found = model.first(x)
    return model.second(found)


def seen_by_a_function(model, x):
    found = model.first(x)
    result = model.second(found)
    return result, lambda: found


def calls(function: Callable[..., object]) -> list[Site]:
    """The calls in a function, in order."""
    code = function.__code__
    return [Site(code, each.offset) for each in instructions(code) if each.opname.startswith("CALL")]


def handed_on(function: Callable[..., object]) -> list[bool]:
    """Of each call in turn, but for the last one, whether its result goes to the next one alone."""
    return [goes_straight(left, right) for left, right in pairwise(calls(function))]


def test_a_result_goes_to_the_next_call_alone():
    assert handed_on(in_a_row) == [True, True]
    assert handed_on(nested) == [True, True, True]
    assert handed_on(in_a_loop) == [False, True]


@pytest.mark.parametrize(
    "function",
    [read_again, read_in_the_next_round, read_after_an_error, in_a_branch, stored, seen_by_a_function],
    ids=lambda function: function.__name__,
)
def test_a_result_may_be_read_elsewhere(function):
    assert not any(handed_on(function))


def test_calls_in_different_functions_are_not_followed_by_each_other():
    assert not goes_straight(calls(in_a_row)[0], calls(nested)[1])


def elsewhere(model):
    return model.head


def caller(model, x):
    if model.head is None or model.head is not None:
        return None
    return elsewhere(model), [model.head(each) for each in x], getattr(model, "head")  # noqa: B009


def test_every_place_that_names_an_attribute_is_counted():
    """In functions within the function and in those that it calls too, but not comparisons with None."""
    codes = reachable_code([(caller.__code__, caller.__globals__)])
    assert mentions(codes, "head") == 3
    assert mentions([caller.__code__], "head") in (1, 2)  # newer versions of Python have the list's loop in place
    assert mentions(codes, "tail") == 0
