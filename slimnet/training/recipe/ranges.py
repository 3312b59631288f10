"""The valid ranges of a recipe's fields, checked in one place with the same error messages."""

import math
import sys
from typing import Any

from slimnet.errors import UsageError


def require(holds: object, name: str, value: Any, wanted: str) -> None:
    """Refuse a field's value.

    Raises:
        UsageError: `holds` is false.
    """
    if not holds:
        raise UsageError(f"the recipe's {name} is {value!r}; it must be {wanted}")


WHOLE = "a whole number of at least {}, and below 2^63"
"""What `is_whole` asks for, in words."""


def is_whole(value: object, least: int) -> bool:
    """Whether this is an integer of at least `least` and of at most 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63


def is_pair(value: object) -> bool:
    """Whether these are two integers of at least 1."""
    return isinstance(value, tuple | list) and len(value) == 2 and all(is_whole(each, 1) for each in value)


def is_number(value: Any, above: float | None = None, below: float = math.inf) -> bool:
    """Whether this is a finite number of at least 0 (greater than `above`, if given) and less than `below`."""
    if not is_finite(value):
        return False
    return (value >= 0 if above is None else value > above) and value < below


def is_finite(value: object) -> bool:
    """Whether this is a finite number of either sign."""
    # An integer may be larger than any float, on which math.isfinite fails.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
