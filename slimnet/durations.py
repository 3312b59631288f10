"""Durations in words for people."""

import math
from itertools import pairwise

UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def in_words(seconds: float) -> str:
    """A rough duration, such as "40 s", "25 min", "3.5 h" or "12 days"; "–" where it is not finite."""
    if not math.isfinite(seconds):
        return "–"
    for limit, unit, name in ((100, 1, "s"), (100 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.2g} {name}" if seconds / unit < 9.5 else f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} days"


def in_two_units(seconds: float, *, smallest: int = 1, space: str = " ") -> str:
    """A duration of at least `smallest` seconds in whole units, such as "5 min 20 s", "3 h 12 min" or "2 d 4 h".

    Units below `smallest` seconds are left out: "2 min" where that is 60.
    """
    whole = round(seconds / smallest) * smallest
    for (large, unit), (small, rest) in pairwise(UNITS):
        if whole >= large:
            text = f"{whole // large}{space}{unit}"
            return f"{text} {whole % large // small}{space}{rest}" if small >= smallest else text
    return f"{whole}{space}s"
