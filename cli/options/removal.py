"""The options of a removal: the criterion, the tolerance, and the multiple to which widths are rounded up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.shared import as_one, criterion_option, keep_option, threshold_option
from slimnet_cli.output import terminal

if TYPE_CHECKING:
    from slimnet_cli.options.data import Labelled

    from slimnet.pipeline import RoundTo

AUTO = "auto"


@dataclass(frozen=True)
class Removing:
    """The criterion for dead channels, the tolerance for outputs, the multiple of widths, and the layers that stay."""

    criterion: str
    threshold: float
    tolerance: float | None
    round_to: int | str | None
    keep: tuple[str, ...]

    @property
    def needs_data(self) -> bool:
        """Whether the criterion is measured on images."""
        from slimnet.planning.dead_channels import require_criterion

        return require_criterion(self.criterion, with_data=True).needs_data

    def check(self, data: Labelled, *, budget: bool) -> None:
        """Refuse an impossible request before anything is read.

        Raises:
            UsageError: the criterion is unknown, needs data and there is none, or cannot be used with a budget.
        """
        from slimnet.planning.dead_channels import GAMMA, require_criterion

        require_criterion(self.criterion, with_data=data.source is not None)
        if budget and self.criterion != GAMMA:
            raise click.UsageError(f"with a budget dead channels are those of --criterion gamma, not {self.criterion}")

    @property
    def measures_widths(self) -> bool:
        """Whether widths are chosen by measuring."""
        return isinstance(self.round_to, str)

    @contextmanager
    def showing_progress(self, what: str) -> Iterator[tuple[RoundTo, terminal.Say]]:
        """Show that work is in progress, and the current candidate if widths are measured.

        Yields the argument `round_to` of `slim`, and the function that shows the status.
        """
        if not self.measures_widths:
            with terminal.working(what) as say:
                yield self.rounding(lambda *_: None), say
            return
        from slimnet.width_search import CANDIDATES

        self.note_load()
        tries = 1 + len(CANDIDATES)
        with terminal.progress("Trying widths", tries) as advance:
            yield self.rounding(lambda done, _, name: advance(done, name)), partial(advance, tries)

    def note_load(self) -> None:
        """Note on stderr that other programs are at work, if widths are measured."""
        if not self.measures_widths:
            return
        from slimnet.benchmark import environment

        where = environment()
        if where.busy:
            terminal.note(
                f"other programs keep {where.other_work} cores busy: try widths again while nothing else runs"
            )

    def rounding(self, tried: Callable[[int, int, str], None]) -> RoundTo:
        """The argument `round_to` of `slim`.

        If widths are measured, `tried` is called with the number of candidates so far, the total, and the last one.
        """
        if not isinstance(self.round_to, str):
            return self.round_to
        from slimnet.width_search import WidthSearch

        return WidthSearch(runtime=self.round_to.partition(":")[2] or None, progress=tried)


class Multiple(click.ParamType):
    """A positive whole number, "auto" with or without a runtime, or "none"."""

    name = "multiple"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str | None:
        """Turn "16" into 16 and "none" into None."""
        if value is None or value == "none":
            return None
        if value == AUTO or (str(value).startswith(f"{AUTO}:") and value in measured_roundings()):
            return str(value)
        if not str(value).isdecimal() or int(value) < 1:
            ways = ", ".join(measured_roundings())
            self.fail(f"{value!r} is no width to round to; give a number such as 16, {ways} or none", param, ctx)
        return int(value)


def measured_roundings() -> tuple[str, ...]:
    """The values of --round for measured widths: on the default runtime, or on one that is no variant."""
    from slimnet.benchmark.runtimes.table import RUNTIMES

    return (AUTO, *(f"{AUTO}:{each.name}" for each in RUNTIMES if not each.is_variant))


OPTIONS = (
    criterion_option,
    threshold_option,
    click.option(
        "--tolerance",
        type=click.FloatRange(0, 1),
        help="Largest allowed change of an output, relative to the largest one. "
        "[default: 1e-4; 1e-2 in float16, 5e-2 in bfloat16]",
    ),
    click.option(
        "--round",
        "round_to",
        type=Multiple(),
        metavar="N|auto|none",
        help="Keep a few removable channels, so that widths are multiples of N; auto measures what is fastest on "
        "onnxruntime (auto:torch, auto:openvino: on these).  [default: none]",
    ),
    keep_option,
)


removing_options = as_one("removing", Removing, OPTIONS)
"""Add the options; the command gets them as one `removing`."""
