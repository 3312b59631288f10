"""Numbers in a captured network: the arithmetic on sizes that a graph may do, and expressions for sizes.

An untrusted file could contain `9**9**9`. Every result here is a number of at most 64 bits, or refused.
"""

import ast
import itertools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slimnet.errors import BundleError

LIMIT = 2**63
"""Integers are smaller than this."""

LARGEST_POWER = 64
"""The largest exponent and shift."""

LONGEST = 2000
"""The most characters that an expression for a size may have."""

TRACED = 2
"""The value of a symbol when an expression is checked: the batch size of the trace."""

Number = bool | int | float


def bounded(value: Any) -> Number:
    """Check that a value is a number of at most 64 bits.

    Raises:
        BundleError: it is none, or too large.
    """
    if type(value) not in (bool, int, float) or (type(value) is int and abs(value) > LIMIT):
        raise BundleError("it has a size that is not a number of 64 bits")
    return value


def integer(value: Any) -> int:
    """Check that a value is an integer of at most 64 bits.

    Raises:
        BundleError: it is something else.
    """
    if type(value) is not int or abs(value) > LIMIT:
        raise BundleError("it has something else where an integer of 64 bits belongs")
    return value


def power(base: Number, exponent: Number) -> Number:
    """A power with a small exponent.

    Raises:
        BundleError: the exponent is large.
    """
    if abs(exponent) > LARGEST_POWER:
        raise BundleError(f"it has a size with an exponent over {LARGEST_POWER}")
    return base**exponent


def shift(by: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Number]:
    """A shift of bits by a small number.

    Raises:
        BundleError: by a large one.
    """

    def shifted(value: Number, bits: Number) -> Number:
        if not 0 <= bits <= LARGEST_POWER:
            raise BundleError(f"it has a size shifted by more than {LARGEST_POWER} bits")
        return by(value, bits)

    return shifted


def either(condition: Number, first: Number, second: Number) -> Number:
    """One of two numbers."""
    return first if condition else second


SCALARS: Mapping[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in ["add", "sub", "mul", "truediv", "floordiv", "mod", "neg", "pos"]
    },
    **{f"_operator.{name}": getattr(operator, name) for name in ["eq", "ne", "lt", "le", "gt", "ge", "and_", "or_"]},
    **{f"_operator.{name}": shift(getattr(operator, name)) for name in ("lshift", "rshift")},
    **{f"math.{name}": getattr(math, name) for name in ["ceil", "floor", "trunc", "sqrt"]},
    "_operator.pow": power,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_int": int,
    "torch.sym_float": float,
    "torch.sym_not": operator.not_,
    "torch.sym_ite": either,
    "torch.sym_sqrt": math.sqrt,
    "torch._sym_sqrt": math.sqrt,
    "torch.sym_sum": lambda terms: sum(terms),
}
"""The functions on sizes that a graph may call, by name."""


def compute(name: str, arguments: list[Any]) -> Number:
    """Call one of the functions on sizes.

    Raises:
        BundleError: an argument or the result is no number of 64 bits.
        ArithmeticError, ValueError, TypeError: the function is not defined there.
    """
    for each in arguments:
        for number in each if isinstance(each, list) else [each]:
            bounded(number)
    return bounded(SCALARS[name](*arguments))


def product(*factors: Number) -> Number:
    """A product, bounded at every step."""
    result: Number = 1
    for factor in factors:
        result = bounded(result * factor)
    return result


def same(value: Number) -> Number:
    """The number itself."""
    return value


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(["Integer", "ToFloat", "Identity"], same),
    "Float": lambda value, precision=0: float(value),
    "Rational": operator.truediv,
    "Add": lambda *terms: sum(terms),
    "Mul": product,
    **dict.fromkeys(["Pow", "PowByNatural", "FloatPow"], power),
    "Max": max,
    "Min": min,
    "Abs": abs,
    "Not": operator.not_,
    "Where": either,
    "And": lambda *terms: all(terms),
    "Or": lambda *terms: any(terms),
    "Equality": operator.eq,
    "Unequality": operator.ne,
    "StrictLessThan": operator.lt,
    "LessThan": operator.le,
    "StrictGreaterThan": operator.gt,
    "GreaterThan": operator.ge,
    **dict.fromkeys(["FloorDiv", "CleanDiv"], operator.floordiv),
    **dict.fromkeys(["PythonMod", "Mod"], operator.mod),
    **dict.fromkeys(["FloatTrueDiv", "IntTrueDiv"], operator.truediv),
    "ModularIndexing": lambda base, divisor, modulus: base // divisor % modulus,
    "CeilDiv": lambda left, right: -(-left // right),
    "CeilToInt": math.ceil,
    "FloorToInt": math.floor,
    "TruncToInt": math.trunc,
    "RoundToInt": round,
    "TruncToFloat": lambda value: float(math.trunc(value)),
}
"""The functions that an expression for a size may call, by name."""

OPERATORS: Mapping[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: power,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
"""The operators in an expression for a size."""

SYMBOL = re.compile(r"[a-zA-Z_]\w{0,39}", re.ASCII)

ASSUMPTIONS = {"positive", "nonnegative", "negative", "integer", "real", "finite"}
"""The assumptions that an expression may state about a symbol."""


def is_size(text: Any) -> bool:
    """Whether a text is an expression of numbers and symbols, as torch writes sizes, with a result of 64 bits."""
    if not isinstance(text, str) or len(text) > LONGEST or not (text.isascii() and text.isprintable()):
        return False
    try:
        size(ast.parse(text, mode="eval").body)
    except (BundleError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError, OverflowError):
        return False
    except ZeroDivisionError:
        return True
    return True


def size(node: ast.expr) -> Number:
    """The value of an expression in which each symbol is the batch size of the trace.

    Raises:
        BundleError: it is no arithmetic expression, or a result is too large.
    """
    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return bounded(value)
        case ast.Name(id=name) if name not in FUNCTIONS:
            return TRACED
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str() as name)], keywords=about) if (
            SYMBOL.fullmatch(name) and are_assumptions(about)
        ):
            return TRACED
        case ast.Call(func=ast.Name(id="Float"), args=[ast.Constant(value=str() as digits)], keywords=about) if len(
            digits
        ) < LARGEST_POWER and are_precisions(about):
            return bounded(float(digits))
        case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]) if name in FUNCTIONS:
            return bounded(FUNCTIONS[name](*map(size, parts)))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in OPERATORS:
            return bounded(OPERATORS[type(sign)](size(left), size(right)))
        case ast.Compare(left=left, ops=signs, comparators=others) if are_known(signs):
            return compared(signs, [size(part) for part in (left, *others)])
        case ast.BoolOp(op=sign, values=parts):
            values = [size(part) for part in parts]
            return any(values) if isinstance(sign, ast.Or) else all(values)
        case ast.UnaryOp(op=ast.USub() | ast.Not() as sign, operand=operand):
            return bounded(OPERATORS[type(sign)](size(operand)))
    raise BundleError("it has a size that is not arithmetic")


def are_known(signs: Sequence[ast.cmpop]) -> bool:
    """Whether all comparison operators are those of numbers."""
    return all(type(sign) in OPERATORS for sign in signs)


def compared(signs: Sequence[ast.cmpop], values: Sequence[Number]) -> bool:
    """Whether a chain of comparisons holds."""
    return all(OPERATORS[type(sign)](*pair) for sign, pair in zip(signs, list(itertools.pairwise(values)), strict=True))


def are_assumptions(about: Sequence[ast.keyword]) -> bool:
    """Whether keyword arguments are assumptions that torch writes about a symbol, such as `integer=True`."""
    return all(each.arg in ASSUMPTIONS and is_flag(each.value) for each in about)


def are_precisions(about: Sequence[ast.keyword]) -> bool:
    """Whether keyword arguments are what torch writes with a float: its precision."""
    return all(each.arg in ("precision", "dps") for each in about)


def is_flag(node: ast.expr) -> bool:
    """Whether an expression is `True` or `False`."""
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)
