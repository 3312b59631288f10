"""Formatting of numbers for people: three significant figures and a unit."""

import math
from collections.abc import Callable
from unicodedata import category

from slimnet.durations import in_two_units

Shown = Callable[[float], str]

FILE_KINDS = {"onnx": "ONNX file", "weights": "Weights file"}
"""The files of a network whose sizes are compared, in words."""

SPACE = "\u202f"
"""A narrow no-break space."""


def amount(number: float) -> str:
    """A count with an SI prefix: 940, 38.1 k, 1.16 M."""
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * scale:
            return f"{figures(number / scale)}{SPACE}{prefix}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Bytes: 940 B, 38.1 kB, 1.16 MB."""
    text = amount(number)
    return f"{text}B" if text[-1] in "GMk" else f"{text}{SPACE}B"


def duration(milliseconds: float) -> str:
    """A time: 84.2 µs, 1.31 ms, 2.05 s."""
    if milliseconds >= 999.5:
        return f"{figures(milliseconds / 1e3)}{SPACE}s"
    if milliseconds >= 0.9995:
        return f"{figures(milliseconds)}{SPACE}ms"
    return f"{figures(milliseconds * 1e3)}{SPACE}µs"


def long_duration(seconds: float) -> str:
    """A long duration: 43 s, 5 min 20 s, 3 h 12 min, 2 d 4 h."""
    return duration(1e3 * seconds) if round(seconds) < 60 else in_two_units(seconds, space=SPACE)


def figures(number: float) -> str:
    """A number below 1,000 with three significant figures: 1.16, 38.1, 940."""
    digits = 0 if abs(number) >= 99.95 else 1 if abs(number) >= 9.995 else 2
    return f"{number:.{digits}f}"


def percent(fraction: float, digits: int = 0) -> str:
    """A fraction as a percentage; only 1 is shown as 100 % and only 0 as 0 %."""
    if fraction in (0, 1):
        return f"{100 * fraction:.0f}{SPACE}%"
    value = 100 * fraction
    lowest = 10.0**-digits
    if 0 < value < lowest / 2:
        return f"<{SPACE}{lowest:.{digits}f}{SPACE}%"
    if 100 - lowest / 2 <= value < 100:
        return f">{SPACE}{100 - lowest:.{digits}f}{SPACE}%"
    return f"{value:.{digits}f}{SPACE}%"


def tiny(number: float | None) -> str:
    """A difference: 0, 2.4 × 10⁻⁷, or a dash if it was not measured."""
    if number is None or math.isnan(number):
        return "–"
    if number == 0 or 1e-3 <= number < 1e3:
        return f"{number:.2g}"
    mantissa, exponent = f"{number:.1e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    factor = "" if mantissa == "1.0" else f"{mantissa}{SPACE}×{SPACE}"
    return f"{factor}10{power}"


def times(ratio: float, digits: int = 1) -> str:
    """A factor: 3.1 ×."""
    return f"{ratio:.{digits if ratio < 99.95 else 0}f}{SPACE}×"


def printable(name: str, longest: int | None = None) -> str:
    """A name for display: control characters are replaced, and the beginning of a long name is omitted."""
    clean = "".join("�" if category(letter)[0] == "C" or letter in "\u2028\u2029" else letter for letter in name)
    if longest is None or len(clean) <= longest:
        return clean
    return "…" + clean[len(clean) - longest + 1 :]
