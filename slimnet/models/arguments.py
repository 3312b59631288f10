"""Checks of the arguments of network constructors, with the same messages in all of them."""

import math
from collections.abc import Mapping, Sequence

from slimnet.errors import ArchitectureError


def require_positive(**sizes: int) -> None:
    """Check sizes given by name.

    Raises:
        ArchitectureError: one of them is not a whole number of at least 1.
    """
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ArchitectureError(f"{name} must be a whole number of at least 1, got {size!r}")


def require_sizes(**lists: Sequence[int]) -> None:
    """Check lists of sizes given by name; a list may be empty.

    Raises:
        ArchitectureError: one of them is no list, or holds something other than whole numbers of at least 1.
    """
    for name, sizes in lists.items():
        if isinstance(sizes, str) or not isinstance(sizes, Sequence):
            raise ArchitectureError(f"{name} must be a list of whole numbers, got {sizes!r}")
        for size in sizes:
            require_positive(**{name: size})


def require_below_one(**shares: float) -> None:
    """Check numbers given by name.

    Raises:
        ArchitectureError: one of them is no number from 0 to below 1.
    """
    for name, share in shares.items():
        if not is_number(share) or not 0 <= share < 1:
            raise ArchitectureError(f"{name} must be at least 0 and below 1, got {share!r}")


def is_number(value: object) -> bool:
    """Whether a value is a finite number and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def scaled(widths: Sequence[int], factor: float) -> tuple[int, ...]:
    """Widths times a factor, rounded, at least 1 each.

    Raises:
        ArchitectureError: the factor is no number above 0.
    """
    if not is_number(factor) or factor <= 0:
        raise ArchitectureError(f"width must be a factor above 0, got {factor!r}")
    return tuple(max(1, round(factor * channels)) for channels in widths)


def hidden_widths(hidden: Sequence[int] | str, heads: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The widths of a classifier's hidden layers, from a list or one of the names in `heads`.

    Raises:
        ArchitectureError: it is neither.
    """
    widths = heads.get(hidden) if isinstance(hidden, str) else hidden
    if not isinstance(widths, Sequence):
        names = ", ".join(heads)
        raise ArchitectureError(f"hidden must be a list of widths such as [512], or one of {names}; got {hidden!r}")
    require_sizes(hidden=widths)
    return tuple(widths)
