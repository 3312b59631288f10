"""What a command line says about what is removed: the threshold, the tolerance, and what widths are rounded to."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import click
from slimnet_cli.options import Command, threshold_option


@dataclass(frozen=True)
class Removing:
    """What counts as dead, how far outputs may move, and what widths are rounded up to."""

    threshold: float
    tolerance: float | None
    round_to: int | None


class Multiple(click.ParamType):
    """A positive whole number, or "none"."""

    name = "multiple"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Turn "16" into 16 and "none" into None."""
        if value is None or value == "none":
            return None
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"{value!r} is no width to round to; give a number such as 16, or none", param, ctx)
        return int(value)


OPTIONS = (
    threshold_option,
    click.option(
        "--tolerance",
        type=click.FloatRange(0, 1),
        help="How far outputs may move, relative to the largest one. "
        "[default: 1e-4; 1e-2 in float16, 5e-2 in bfloat16]",
    ),
    click.option(
        "--round",
        "round_to",
        type=Multiple(),
        metavar="N|none",
        help="Keep a few removable channels, so that widths are multiples of N.  [default: none]",
    ),
)


def removing_options(command: Command) -> Command:
    """Add the options; the command gets them as one `removing`."""

    @functools.wraps(command)
    def with_removing(threshold: float, tolerance: float | None, round_to: int | None, **others: Any) -> Any:
        return command(removing=Removing(threshold, tolerance, round_to), **others)

    return functools.reduce(lambda decorated, option: option(decorated), reversed(OPTIONS), with_removing)
