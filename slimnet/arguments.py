"""Checks of what callers pass to the library, and how their errors show it: in one line, whatever it is."""

import math
from numbers import Integral, Real

from slimnet.errors import UsageError, shown


def check_type(name: str, value: object, kind: type | tuple[type, ...], needed: str) -> None:
    """Refuse an argument of another type; `needed` says what to pass.

    Raises:
        UsageError: naming the argument.
    """
    if not isinstance(value, kind):
        raise UsageError(f"{name} is {shown(value)}; {needed}")


def check_count(name: str, value: object, meaning: str) -> None:
    """Refuse what is no whole number of at least 1; `meaning` says what it counts.

    Raises:
        UsageError: naming the argument.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise UsageError(f"{name} is {shown(value)}; it must be at least 1, {meaning}")


def check_limit(name: str, value: object, example: str, *, finite: bool = True) -> float:
    """A number of at least 0, as a float; `example` is a usual one. Without `finite` it may be infinite.

    Raises:
        UsageError: it is none, naming the argument.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        if number >= 0 and (number < math.inf or not finite):
            return number
    kind = "a finite number" if finite else "a number"
    raise UsageError(f"{name} is {shown(value)}; it must be {kind} ≥ 0, such as {example}")
