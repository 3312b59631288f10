"""inspect: the dead channels of a network, the removable ones, and the reasons for keeping the others."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from slimnet.graph.channel_graph import ChannelGraph
from slimnet.modules.example_inputs import ExampleInputs, check_inputs
from slimnet.modules.network import Network
from slimnet.pipeline import RoundTo, as_rounding, plan_and_apply
from slimnet.planning.asked_layers import as_patterns
from slimnet.planning.dead_channels import DeadChannels, find_dead, require_criterion
from slimnet.planning.make_plan import make_plan
from slimnet.printable import Summarised
from slimnet.surgery.kept_shares import ranking_lines
from slimnet.surgery.plan import SurgeryPlan
from slimnet.tracing.trace import trace
from slimnet.width_search import WidthSearch


@dataclass(frozen=True)
class LayerReport:
    """One convolution or linear layer: its output channels, and the |γ| of the BatchNorm right behind it."""

    name: str
    kind: str
    channels: int
    dead: int
    removable: int
    kept_because: dict[str, int]
    macs: int
    gammas: tuple[float, ...]


@dataclass(frozen=True, repr=False)
class Inspection(Summarised):
    """The channels of every layer of a network, and the plan by which `slim` would remove dead ones.

    `input_shapes` are those of the example inputs, without the batch. The totals of parameters and MACs, before and
    after slimming, are in the plan (`plan.params_before`, `plan.params_after`, `plan.macs_before`, `plan.macs_after`).
    """

    layers: tuple[LayerReport, ...]
    plan: SurgeryPlan
    input_shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def channels(self) -> int:
        """Output channels of all layers."""
        return sum(layer.channels for layer in self.layers)

    @property
    def dead_channels(self) -> int:
        """Dead output channels of all layers."""
        return sum(layer.dead for layer in self.layers)

    @property
    def removable_channels(self) -> int:
        """Output channels of all layers that could be removed."""
        return sum(layer.removable for layer in self.layers)

    @property
    def summary(self) -> str:
        """The dead channels, and what slimming would remove."""
        return f"{self.dead_channels:,} dead channels; {self.plan.summary}"

    @property
    def inputs(self) -> str:
        """The shapes of the example inputs in words, without the batch."""
        return ", ".join(" × ".join(map(str, shape)) or "a number" for shape in self.input_shapes)

    def __str__(self) -> str:
        inputs = [f"inputs of {self.inputs}"] if self.input_shapes else []
        ranking = ["", *found] if (found := ranking_lines(self.plan)) else []
        return "\n".join([*inputs, *layer_table(self), *ranking, "", str(self.plan)])


def inspect(
    model: nn.Module,
    example_inputs: ExampleInputs,
    threshold: float = 1e-3,
    *,
    criterion: str = "gamma",
    loader: Iterable[Any] | None = None,
    round_to: RoundTo = None,
    keep: str | Sequence[str] = (),
) -> Inspection:
    """Report every layer's dead and removable channels, and the reasons for kept ones.

    The arguments are as for `slim`; `loader` yields the batches on which the criterion "activation" is measured. The
    model is not changed.

    Raises:
        TraceError, InputError, UsageError: as `slim` does.
    """
    require_criterion(criterion, with_data=loader is not None)
    patterns = as_patterns(keep)
    inputs = check_inputs(model, example_inputs)

    def find(graph: ChannelGraph) -> DeadChannels:
        return find_dead(model, graph, threshold, criterion, loader, patterns)

    graph = trace(model, inputs)
    rounding = as_rounding(round_to)
    if isinstance(rounding, WidthSearch):
        plan = plan_and_apply(model, inputs, find, rounding)[1]
    else:
        plan = make_plan(model, inputs, graph, find(graph), rounding=rounding)
    reasons: dict[str, Counter[str]] = {}
    for kept in plan.kept:
        reasons.setdefault(kept.layer, Counter())[kept.reason] += len(kept.channels)
    gammas = scales_behind(graph, model)
    layers = tuple(
        LayerReport(
            name=layer.name,
            kind=layer.kind,
            channels=layer.channels_before,
            dead=layer.dead,
            removable=layer.channels_before - layer.channels_after,
            kept_because=dict(reasons.get(layer.name, {})),
            macs=layer.macs_before,
            gammas=gammas.get(layer.name, ()),
        )
        for layer in plan.layers
    )
    return Inspection(layers, plan, tuple(tuple(tensor.shape[1:]) for tensor in inputs.tensors))


def layer_table(found: Inspection) -> list[str]:
    """The layers and their totals as lines of text in columns."""
    headings = ("layer", "kind", "channels", "dead", "removable", "MACs")
    rows = [
        (each.name, each.kind, *(f"{number:,}" for number in (each.channels, each.dead, each.removable, each.macs)))
        for each in found.layers
    ]
    numbers = (found.channels, found.dead_channels, found.removable_channels, found.plan.macs_before)
    total = ("total", "", *(f"{number:,}" for number in numbers))
    widths = [max(map(len, column)) for column in zip(headings, *rows, total, strict=True)]
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    return [aligned(headings, widths), rule, *(aligned(row, widths) for row in rows), rule, aligned(total, widths)]


def aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Cells in columns: the first two are words, the others numbers."""
    words = [cell.ljust(width) for cell, width in zip(cells[:2], widths, strict=False)]
    return "  ".join([*words, *(cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True))])


def scales_behind(graph: ChannelGraph, model: nn.Module) -> dict[str, tuple[float, ...]]:
    """|γ| of the BatchNorm that reads exactly a layer's outputs, by layer."""
    tensors = Network.of(model).state
    by_input = {norm.inputs.tobytes(): gamma for gamma, norm in graph.norms}
    found: dict[str, tuple[float, ...]] = {}
    for layer in graph.layers:
        parameter = by_input.get(np.ascontiguousarray(layer.outputs).tobytes())
        if parameter is not None:
            found[layer.module] = tuple(tensors[parameter].detach().abs().to("cpu", torch.float64).tolist())
    return found
