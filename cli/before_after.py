"""The table of what a network was and what it is now, for people and for machines."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text
from slimnet_cli import terminal

if TYPE_CHECKING:
    from slimnet import Slimmed
    from slimnet.benchmark import Comparison
    from slimnet.training import Accuracy

    Accuracies = tuple[Accuracy, Accuracy]

Row = tuple[str, str, str, str]


def table(slimmed: Slimmed, accuracies: Accuracies | None, comparison: Comparison | None = None) -> Table:
    """Size, accuracy and speed before and after."""
    rows = [*_sizes(slimmed), *(_measured(comparison) if comparison else ()), *_accuracy(accuracies)]
    return _grid(rows)


def comparison_table(comparison: Comparison) -> Table:
    """Size and speed of two networks of which no more is known."""
    dense, slim = comparison.counts[0], comparison.counts[-1]
    rows = [_row("parameters", dense.params, slim.params)]
    if dense.macs is not None and slim.macs is not None:
        rows.append(_row("multiply-accumulates", dense.macs, slim.macs))
    return _grid([*rows, *_measured(comparison)])


def _grid(rows: list[Row]) -> Table:
    cells = [
        (name, before, Text(after, style="bold"), Text(change, style="green")) for name, before, after, change in rows
    ]
    return terminal.table(("", "dense", "slim", ""), cells, right=(1, 2))


def document(slimmed: Slimmed, accuracies: Accuracies | None) -> dict[str, Any]:
    """The same for machines."""
    plan = slimmed.plan
    found: dict[str, Any] = {
        "architecture": slimmed.architecture.to_json() if slimmed.architecture else None,
        "channels": {"before": _channels(slimmed), "after": _channels(slimmed) - plan.removed_channels},
        "dead_channels": plan.dead_channels,
        "parameters": {"before": plan.params_before, "after": plan.params_after},
        "macs": {"before": plan.macs_before, "after": plan.macs_after},
        "layers": [dataclasses.asdict(layer) for layer in plan.layers],
        "plan_digest": plan.digest,
        "certificate": json.loads(slimmed.certificate.to_json()),
    }
    if accuracies:
        before, after = accuracies
        found["accuracy"] = {"before": dataclasses.asdict(before), "after": dataclasses.asdict(after)}
    return found


def _channels(slimmed: Slimmed) -> int:
    return sum(layer.channels_before for layer in slimmed.plan.layers)


def _sizes(slimmed: Slimmed) -> list[Row]:
    plan, channels = slimmed.plan, _channels(slimmed)
    return [
        _row("channels", channels, channels - plan.removed_channels),
        _row("parameters", plan.params_before, plan.params_after),
        _row("multiply-accumulates", plan.macs_before, plan.macs_after),
    ]


def _row(name: str, before: int, after: int) -> Row:
    from slimnet.report.wording import percent

    if before == after or not before:
        change = "unchanged"
    else:
        change = f"{percent(abs(after - before) / before)} {'less' if after < before else 'more'}"
    return (name, f"{before:,}", f"{after:,}", change)


def _measured(comparison: Comparison) -> list[Row]:
    """File sizes, and the latency on every runtime at every batch size."""
    from slimnet.report.verdict import FILE_KINDS
    from slimnet.report.wording import duration, size

    rows: list[Row] = []
    before, after = comparison.counts[0].file_bytes, comparison.counts[-1].file_bytes
    for kind, name in FILE_KINDS.items():
        if before.get(kind) and kind in after:
            *_, change = _row(name, before[kind], after[kind])
            rows.append((name, size(before[kind]), size(after[kind]), change))
    for latency in comparison.latencies:
        interval = latency.speedup()
        rows.append(
            (
                f"{latency.runtime}, batch {latency.batch}",
                duration(latency.median_ms(0)),
                duration(latency.median_ms(-1)),
                str(interval),
            )
        )
    return rows


def _accuracy(accuracies: Accuracies | None) -> list[Row]:
    from slimnet.report.wording import percent

    if accuracies is None:
        return []
    before, after = accuracies
    change = "unchanged" if before.top1 == after.top1 else f"{100 * (after.top1 - before.top1):+.2f} points"
    return [("accuracy", percent(before.top1, 2), percent(after.top1, 2), f"{change}, {before.n} test images")]
