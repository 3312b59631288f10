"""The options of a removal: the criterion, the tolerance, and the multiple to which widths are rounded up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options import names
from slimnet_cli.options.groups import in_group
from slimnet_cli.options.shared import Command, as_one, criterion_option, keep_option, threshold_option
from slimnet_cli.output import terminal
from slimnet_cli.output.other_programs import note_other_programs

if TYPE_CHECKING:
    from slimnet_cli.options.data import Labelled

    from slimnet.kernel_widths.fast_widths import FastWidths
    from slimnet.pipeline import RoundTo
    from slimnet.planning.width_rounding import Rounding

AUTO, FAST, NONE = "auto", "fast", "none"


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
            raise click.UsageError(f"a budget needs --criterion gamma, not {self.criterion}; leave --criterion out")

    @property
    def measures_widths(self) -> bool:
        """Whether widths are chosen by measuring whole networks."""
        return isinstance(self.round_to, str) and self.round_to.partition(":")[0] == AUTO

    def under(self, runtime: str | None) -> Removing:
        """The same, with widths that are fast under a runtime, if fast ones are wanted and no other runtime is."""
        fast = runtime is not None and self.round_to == FAST
        return replace(self, round_to=f"{FAST}:{runtime}") if fast else self

    @contextmanager
    def showing_progress(self, what: str) -> Iterator[tuple[RoundTo, terminal.Say]]:
        """Show that work is in progress, and the current candidate if widths are measured.

        Yields the argument `round_to` of `slim`, and the function that shows the status.
        """
        if not self.measures_widths:
            with terminal.working(what) as say:
                yield self.rounding(lambda *_: None, say), say
            return
        from slimnet.width_search import CANDIDATES

        self.note_load()
        tries = 1 + len(CANDIDATES)
        with terminal.progress("Trying widths", tries) as advance:
            yield self.rounding(lambda done, _, name: advance(done, name), terminal.note), partial(advance, tries)

    def note_load(self) -> None:
        """Note on stderr that other programs are at work, if widths are measured."""
        if self.measures_widths:
            note_other_programs("try widths again while nothing else runs")

    def rounding(self, tried: Callable[[int, int, str], None], say: terminal.Say) -> RoundTo:
        """The argument `round_to` of `slim`.

        If whole networks are measured, `tried` is called with the number of candidates so far, the total, and the last
        one; if kernels are, which is once on a machine, `say` is called with a short status.
        """
        if not isinstance(self.round_to, str):
            return self.round_to
        name, _, runtime = self.round_to.partition(":")
        if name == FAST:
            return fast_widths(runtime or None, say)
        from slimnet.width_search import WidthSearch

        return WidthSearch(runtime=runtime or None, progress=tried)


def fast_widths(runtime: str | None, say: terminal.Say) -> FastWidths:
    """Widths that are fast under a runtime; `say` is called with a short status if its kernels are measured."""
    from slimnet.kernel_widths.fast_widths import FastWidths

    def show(done: int, total: int, doing: str) -> None:
        say(f"measuring kernels, once on this machine: {done + 1} of {total}, {doing}")

    return FastWidths(runtime, progress=show, warn=terminal.note)


def chosen_widths(round_to: int | str | None, say: terminal.Say) -> int | Rounding | None:
    """The widths that a value of --round stands for where whole networks are not measured; see `fast_widths`."""
    if not isinstance(round_to, str):
        return round_to
    return fast_widths(round_to.partition(":")[2] or None, say).rounding()


class Multiple(click.ParamType):
    """A positive whole number, "fast" or "auto" with or without a runtime, or "none"."""

    name = "multiple"

    def __init__(self, whole_networks: bool) -> None:
        self.whole_networks = whole_networks

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str | None:
        """Turn "16" into 16 and "none" into None."""
        if value is None or value == NONE:
            return None
        measured = (FAST, AUTO) if self.whole_networks else (FAST,)
        if value in measured or (":" in str(value) and value in measured_roundings(measured)):
            return str(value)
        if not str(value).isdecimal() or int(value) < 1:
            ways = ", ".join(measured_roundings(measured))
            self.fail(f"{value!r} is not a width to round to; give a number such as 16, {ways} or none", param, ctx)
        return int(value)


def measured_roundings(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """The values of --round for measured widths: on the default runtime, or on one that is no variant."""
    return tuple(way for kind in kinds for way in (kind, *(f"{kind}:{name}" for name in names.DEPLOYABLE)))


def round_option(group: str = "", *, whole_networks: bool = True) -> Callable[[Command], Command]:
    """The option --round, in a group of options if that is named; `whole_networks` is whether they can be measured."""
    auto = "; auto, by measuring whole networks (fast:torch, auto:openvino, ...: in these)" if whole_networks else ""
    return (in_group(group) if group else click.option)(
        "--round",
        "round_to",
        type=Multiple(whole_networks),
        metavar="fast|auto|N|none" if whole_networks else "fast|N|none",
        default=FAST,
        show_default=True,
        help="Keep removable channels whose removal saves no time: fast, by times of onnxruntime's kernels, "
        f"measured once on this machine{auto}. N rounds widths up to multiples of N, none removes all.",
    )


OPTIONS = (
    criterion_option,
    threshold_option,
    click.option(
        "--tolerance",
        type=click.FloatRange(0, 1),
        help="Largest allowed change of an output, relative to its own largest value. "
        "[default: 1e-4; 1e-2 in float16, 5e-2 in bfloat16]",
    ),
    round_option(),
    keep_option,
)


removing_options = as_one("removing", Removing, OPTIONS)
"""Add the options; the command gets them as one `removing`."""
