"""slimnet inspect: the dead and the removable channels of a network."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import click
from rich.text import Text
from slimnet_cli.options.data import Labelled, criterion_images, data_options
from slimnet_cli.options.groups import GroupedCommand
from slimnet_cli.options.network import Network
from slimnet_cli.options.paths import existing_source
from slimnet_cli.options.shared import (
    THRESHOLD,
    criterion_option,
    json_option,
    keep_option,
    network_options,
    threshold_option,
)
from slimnet_cli.options.sources import find_source
from slimnet_cli.output import terminal
from slimnet_cli.output.next_step import show_next
from slimnet_cli.output.option_names import with_options

if TYPE_CHECKING:
    from slimnet import Inspection, SurgeryPlan
    from slimnet.counting import NetworkCounts
    from slimnet.inspection import LayerReport

EXAMPLES = """\b
Examples:
  slimnet inspect runs/digits
  slimnet inspect resnet56.th --arch resnet56
  slimnet inspect net.pth --arch torchvision:mobilenet_v2 --threshold 1e-4 --json
  slimnet inspect vgg.pt --arch vgg16 --criterion activation --data cifar10
"""

BAR_WIDTH = 48
BARS_PER_DECADE = 2
SMALLEST_GAMMA = 1e-8
EIGHTHS = " ▏▎▍▌▋▊▉█"


@click.command(cls=GroupedCommand, epilog=EXAMPLES, short_help="Show dead channels, and why some are kept.")
@click.argument("checkpoint", metavar="CKPT|RUN|BUNDLE", callback=existing_source)
@network_options(required=False, references=True)
@criterion_option
@threshold_option
@keep_option
@data_options
@json_option
def inspect(
    checkpoint: str,
    network: Network,
    criterion: str,
    threshold: float,
    keep: tuple[str, ...],
    data: Labelled,
    as_json: bool,
) -> None:
    """Show every layer's dead and removable channels, the reasons for keeping the others, and a histogram of γ.

    Below the table are the lines of code and the layers that keep most dead channels, with a remedy where there is one.

    The totals are the parameters and MACs of the network as it is, and after slimming it with --round none: the default
    of slimnet slim keeps the removable channels whose removal saves no time.

    CKPT is a checkpoint, which needs --arch; the folder of a RUN and a BUNDLE store their architecture.

    With --criterion activation a channel is dead if its activation is zero on all training images of --data, on which
    the network runs once.
    """
    import slimnet
    from slimnet.counting import count_or_take
    from slimnet.planning.dead_channels import GAMMA, require_criterion
    from slimnet.surgery.kept_shares import rank_lines

    source = find_source(checkpoint, network)
    data = source.labelled(data)
    require_criterion(criterion, with_data=data.source is not None)
    images = data.load()
    with terminal.working("Analysing the network") as say:
        model = source.load()
        example, loader = source.example(model, images), criterion_images(images, say)
        inspection = slimnet.inspect(model, example, threshold, criterion=criterion, loader=loader, keep=keep)
        counts = count_or_take(model, example, inspection.plan.macs_before)
    if as_json:
        terminal.emit(
            {
                "criterion": inspection.plan.criterion,
                "input_shapes": inspection.input_shapes,
                "channels": inspection.channels,
                "dead_channels": inspection.dead_channels,
                "removable_channels": inspection.removable_channels,
                "shares": inspection.plan.shares.to_data(),
                "lines_of_code": [dataclasses.asdict(line) for line in rank_lines(inspection.plan)],
                "parameters": {"before": inspection.plan.params_before, "after": inspection.plan.params_after},
                "macs": {"before": inspection.plan.macs_before, "after": inspection.plan.macs_after},
                "counted": dataclasses.asdict(counts),
                "layers": [dataclasses.asdict(layer) for layer in inspection.layers],
            }
        )
        return
    _show(inspection, counts, threshold if criterion == GAMMA else None)
    if inspection.removable_channels:
        how = [] if criterion == GAMMA else ["--criterion", criterion]
        how += [] if threshold == THRESHOLD else ["--threshold", f"{threshold:g}"]
        kept = [word for layer in keep for word in ("--keep", layer)]
        show_next("slim", *source.arguments, *how, *kept, *data.arguments, "-o", "slim/")
    else:
        show_next("slim", *source.arguments, "--target-macs", "0.5", *data.arguments, "-o", "half/")


def _show(inspection: Inspection, counts: NetworkCounts, threshold: float | None) -> None:
    """The layers, what keeps dead channels, the histogram of γ for the criterion γ, and the sums."""
    console, plan = terminal.result(), inspection.plan
    headings = ["layer", "kind", "channels", "dead", "removable", "MACs", "parameters", "dead but kept, because"]
    rows = [*(_layer_row(layer, counts) for layer in inspection.layers), _total_row(inspection, counts)]
    if not plan.kept:
        # Without reasons the table fits a terminal of 80 columns.
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    console.print(terminal.table(headings, rows, right=(2, 3, 4, 5, 6)))
    for kept, advice in {kept.reason: kept.help for kept in plan.kept if kept.help}.items():
        console.print(f"{kept}: {with_options(advice)}", style="dim")
    _show_holders(plan)
    gammas = list(chain.from_iterable(layer.gammas for layer in inspection.layers))
    if gammas and threshold is not None:
        console.print(f"\n|γ| of {len(gammas):,} channels", style="bold")
        for line in histogram(gammas, threshold):
            console.print(line)
    _show_sums(inspection)
    console.print(counted(counts, plan.macs_before), style="dim", soft_wrap=True)


def _layer_row(layer: LayerReport, counts: NetworkCounts) -> tuple[str | Text, ...]:
    """A layer's channels and costs, and why dead ones of it stay."""
    from slimnet.report.formatting import amount

    return (
        layer.name,
        layer.kind,
        f"{layer.channels}",
        Text(f"{layer.dead}", style="yellow" if layer.dead else "dim"),
        Text(f"{layer.removable}", style="green" if layer.removable else "dim"),
        amount(layer.macs),
        f"{counts.parameters[layer.name]:,}" if layer.name in counts.parameters else "",
        "; ".join(f"{count} {reason}" for reason, count in layer.kept_because.items()),
    )


def _total_row(inspection: Inspection, counts: NetworkCounts) -> tuple[str | Text, ...]:
    """The sums of the columns."""
    from slimnet.report.formatting import amount

    totals = (inspection.channels, inspection.dead_channels, inspection.removable_channels)
    numbers = (Text(f"{number}", style="bold") for number in totals)
    return ("total", "", *numbers, amount(counts.macs), f"{counts.parameters['']:,}", "")


def _show_sums(inspection: Inspection) -> None:
    """How many channels are dead, how many can be removed, and what that does to the network."""
    from slimnet.report.formatting import amount
    from slimnet.surgery.plan_text import change

    console, plan = terminal.result(), inspection.plan
    stay = f"; {plan.shares.kept_in_words}" if plan.shares.kept_in_words else ""
    dead = f"{inspection.dead_channels:,} channels are dead ({plan.criterion})"
    console.print(f"\n{dead}, {inspection.removable_channels:,} can be removed{stay}.", soft_wrap=True)
    sizes = (("parameters", plan.params_before, plan.params_after), ("MACs", plan.macs_before, plan.macs_after))
    slimmed = ", ".join(
        f"{name} {amount(before)} → {amount(after)} ({change(before, after)})" for name, before, after in sizes
    )
    console.print(f"inputs of {inspection.inputs}; if slimmed: {slimmed} with --round none", soft_wrap=True)


def _show_holders(plan: SurgeryPlan) -> None:
    """The lines of code, and the layers, that keep most dead channels, with the reason and the remedy."""
    from slimnet.surgery.kept_shares import RANKED, rank_layers, rank_lines

    console = terminal.result()
    for what, holders in (("line of code", rank_lines(plan)), ("layer", rank_layers(plan))):
        if holders:
            rows = [
                (holder.name, f"{holder.channels:,}", holder.reason, with_options(holder.help))
                for holder in holders[:RANKED]
            ]
            console.print("")
            headings = (f"{what} that keeps most", "dead but kept", "mostly because", "remedy")
            console.print(terminal.table(headings, rows, right=(1,)))


def counted(counts: NetworkCounts, planned: int) -> str:
    """Who counted the MACs, what else it counted, and the number of the plan where that is another one."""
    products = sum(counts.by_operator.get(name, 0) for name in ("attention", "bmm", "einsum", "matmul"))
    words = [f"{counts.macs:,} MACs in all, counted by {counts.counted_by}"]
    words += [f"the plan counts {planned:,}"] if planned != counts.macs else []
    words += [f"products of activations: {products:,} more"] if products else []
    words += [] if counts.activations is None else [f"outputs of layers: {counts.activations:,} numbers"]
    return "; ".join(words)


def histogram(gammas: Sequence[float], threshold: float) -> list[Text]:
    """A bar for every half decade of |γ|, smallest first; those below the threshold are yellow."""
    edge = max(threshold, 2 * SMALLEST_GAMMA)
    bins = Counter(_bin(gamma, edge) for gamma in gammas)
    longest = max(bins.values())
    lines = []
    for number in range(min(bins), max(bins) + 1):
        if number == 0:
            lines.append(Text(f"{'':>9} ┄┄ threshold {threshold:g}", style="dim"))
        line = Text(f"{edge * 10 ** (number / BARS_PER_DECADE):>9.0e} ")
        line.append(_bar(bins[number] / longest), style="yellow" if number < 0 else "green")
        lines.append(line.append(f" {bins[number]}" if bins[number] else "", style="dim"))
    return lines


def _bin(gamma: float, edge: float) -> int:
    """The number of half decades from the threshold: negative is dead. The lowest bin includes all smaller values."""
    return math.floor(BARS_PER_DECADE * math.log10(max(gamma, SMALLEST_GAMMA) / edge))


def _bar(part: float) -> str:
    """A bar in eighths of a character; every positive count is visible."""
    eighths = math.ceil(part * BAR_WIDTH * 8)
    return EIGHTHS[8] * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")
