"""The hint to round widths up, where a network with fewer MACs was measured to be slower."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimnet_cli.output import terminal

if TYPE_CHECKING:
    from slimnet.benchmark import Comparison
    from slimnet.surgery.measured_latency import MeasuredLatency


def note_slow_widths(comparison: Comparison) -> None:
    """Print a note for each network with fewer MACs than the first that is measurably slower on the CPU."""
    dense = comparison.counts[0].macs
    for number, counts in enumerate(comparison.counts):
        if not number or dense is None or counts.macs is None or counts.macs >= dense:
            continue
        on_cpu = [each for each in comparison.latencies if each.device == "cpu"]
        slower = next((each.runtime for each in on_cpu if each.speedup(number).is_slower), None)
        if slower is not None:
            terminal.note(f"{counts.name} has fewer MACs and is slower under {slower}: {remedy(slower)}")


def note_missed(latency: MeasuredLatency, rounding: str) -> None:
    """Print a note on a budget of latency that was missed, or on a network that is slower than the dense one."""
    from slimnet.surgery.plan_data import FAST

    if not latency.doubt and latency.low > 1 and (rounding == "none" or rounding.startswith(FAST)):
        terminal.note(f"the slim network is slower than the dense one: {remedy(latency.runtime)}")
    elif latency.missed:
        terminal.note(f"ask for less, or let --round {measured(latency.runtime)} choose the widths")


def remedy(runtime: str) -> str:
    """What helps against slow widths."""
    return (
        f"its widths are slow there; slimnet slim --round {measured(runtime)} keeps the few removable channels with "
        "which it is fastest"
    )


def measured(runtime: str) -> str:
    """The value of --round for widths that are measured on a runtime, or else on the default one."""
    from slimnet.benchmark.runtimes.table import RUNTIMES

    return f"auto:{runtime}" if any(each.name == runtime and not each.is_variant for each in RUNTIMES) else "auto"
