"""A network before and after slimming, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text
from slimnet_cli.output import terminal
from slimnet_cli.output.comparison_tables import less, rows

if TYPE_CHECKING:
    from slimnet import Slimmed, SlimmedOnnx, SurgeryPlan
    from slimnet.benchmark import Comparison
    from slimnet.counting import NetworkCounts
    from slimnet.training import Accuracy

    Accuracies = tuple[Accuracy, Accuracy]
    Counts = tuple[NetworkCounts, NetworkCounts]

Row = tuple[str, str, str, str]


def table(
    slimmed: Slimmed | SlimmedOnnx,
    accuracies: Accuracies | None,
    comparison: Comparison | None = None,
    counts: Counts | None = None,
) -> Table:
    """Size, accuracy and speed before and after; parameters and MACs are the `counts`, or without them the plan's."""
    sizes = _sizes(slimmed.plan) if counts is None else _counted(slimmed.plan, counts)
    return _grid([*sizes, *(_measured(comparison) if comparison else ()), *_accuracy(accuracies)])


def counted_by(plan: SurgeryPlan, counts: Counts) -> str:
    """Who counted the MACs, and those of the plan where they are others."""
    names = " and ".join(dict.fromkeys(each.counted_by for each in counts))
    planned = (plan.macs_before, plan.macs_after)
    others = f"; the plan counts {planned[0]:,} → {planned[1]:,}" if planned != tuple(c.macs for c in counts) else ""
    return f"MACs counted by {names}{others}"


def _grid(lines: list[Row]) -> Table:
    cells = [
        (name, before, Text(after, style="bold"), Text(change, style="green")) for name, before, after, change in lines
    ]
    return terminal.table(("", "dense", "slim", ""), cells, right=(1, 2))


def document(slimmed: Slimmed, accuracies: Accuracies | None, counts: Counts | None = None) -> dict[str, Any]:
    """Size, accuracy and speed before and after, as JSON."""
    architecture = slimmed.architecture.to_json() if slimmed.architecture else None
    found = {"architecture": architecture} | _of_plan(slimmed)
    if counts:
        found["counted"] = dict(zip(("before", "after"), map(dataclasses.asdict, counts), strict=True))
    if accuracies:
        before, after = accuracies
        found["accuracy"] = {"before": dataclasses.asdict(before), "after": dataclasses.asdict(after)}
    return found


def onnx_document(slimmed: SlimmedOnnx) -> dict[str, Any]:
    """An ONNX file before and after, as JSON."""
    sizes = {"before": slimmed.bytes_before, "after": slimmed.bytes_after}
    return {"model": str(slimmed.path), "inputs": slimmed.inputs, "bytes": sizes} | _of_plan(slimmed)


def _of_plan(slimmed: Slimmed | SlimmedOnnx) -> dict[str, Any]:
    plan = slimmed.plan
    return {
        "channels": {"before": _channels(plan), "after": _channels(plan) - plan.removed_channels},
        "criterion": plan.criterion,
        "dead_channels": plan.dead_channels,
        "shares": plan.shares.to_data(),
        "rounding": plan.rounding,
        "kept_for_speed": plan.kept_for_speed,
        "parameters": {"before": plan.params_before, "after": plan.params_after},
        "macs": {"before": plan.macs_before, "after": plan.macs_after},
        "layers": [dataclasses.asdict(layer) for layer in plan.layers],
        "plan_digest": plan.digest,
        "certificate": json.loads(slimmed.certificate.to_json()),
    }


def _channels(plan: SurgeryPlan) -> int:
    return sum(layer.channels_before for layer in plan.layers)


def _sizes(plan: SurgeryPlan) -> list[Row]:
    channels = _channels(plan)
    return [
        _row("channels", channels, channels - plan.removed_channels),
        _row("parameters", plan.params_before, plan.params_after),
        _row("multiply-accumulates", plan.macs_before, plan.macs_after),
    ]


def _counted(plan: SurgeryPlan, counts: Counts) -> list[Row]:
    before, after = counts
    channels = _channels(plan)
    found = [
        _row("channels", channels, channels - plan.removed_channels),
        _row("parameters", before.parameters[""], after.parameters[""]),
        _row("multiply-accumulates", before.macs, after.macs),
    ]
    if before.activations is not None and after.activations is not None:
        found.append(_row("outputs of layers", before.activations, after.activations))
    return found


def _row(name: str, before: int, after: int) -> Row:
    return (name, f"{before:,}", f"{after:,}", less(before, after))


def _measured(comparison: Comparison) -> list[Row]:
    """File sizes, memory, and the latency on every runtime at every batch size."""
    shown = {"parameters", "multiply-accumulates"}
    return [
        (name, before, after, change) for name, ((before, _), (after, change)) in rows(comparison) if name not in shown
    ]


def _accuracy(accuracies: Accuracies | None) -> list[Row]:
    from slimnet.report.formatting import percent

    if accuracies is None:
        return []
    before, after = accuracies
    change = "unchanged" if before.top1 == after.top1 else f"{100 * (after.top1 - before.top1):+.2f} points"
    return [("accuracy", percent(before.top1, 2), percent(after.top1, 2), f"{change}, {before.n} test images")]
