"""slimnet benchmark: networks compared on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
from slimnet_cli.options.contenders import contender, example_for, images_known, measured, named, write_report
from slimnet_cli.options.data import Labelled, data_options
from slimnet_cli.options.groups import GroupedCommand
from slimnet_cli.options.measurement import Measuring, measuring_options
from slimnet_cli.options.network import Network
from slimnet_cli.options.paths import check_source, page_option
from slimnet_cli.options.shared import json_option, network_options
from slimnet_cli.output import comparison_tables, terminal
from slimnet_cli.output.next_step import say_next
from slimnet_cli.output.phases import Phase, progress_of
from slimnet_cli.output.width_hint import note_slow_widths

if TYPE_CHECKING:
    import torch

    from slimnet.benchmark import Comparison, Contender, Settings
    from slimnet.data import ImageData
    from slimnet.data.image_spec import ImageSpec

EXAMPLES = """\b
Examples:
  slimnet benchmark runs/demo/dense/model.onnx runs/demo/slim/model.onnx --layers
  slimnet benchmark resnet56.th slim/ --arch resnet56 --data cifar10 --report report.html
  slimnet benchmark dense.pt slim/ li=pruned/ --arch vgg16 --batch 1,8,32 --threads 1,all --runtime all
"""


@click.command(cls=GroupedCommand, epilog=EXAMPLES, short_help="Compare networks: size, speed, accuracy.")
@click.argument("networks", nargs=-1, metavar="DENSE SLIM [MORE]...")
@network_options(required=False, references=True)
@measuring_options
@data_options
@page_option("--report", what="Write an HTML report")
@json_option
def benchmark(
    networks: tuple[str, ...],
    network: Network,
    measuring: Measuring,
    data: Labelled,
    report: Path | None,
    as_json: bool,
) -> None:
    """Compare networks: size, multiply-accumulates, memory, latency and accuracy.

    DENSE, SLIM and MORE are bundles, runs, .onnx or .xml files, or checkpoints of the network that --arch names;
    NAME=PATH gives one a name, the others are called as their files. Each network is compared with the first, on every
    runtime that can run them all. Measurements are interleaved, in two series (sittings) with a pause between them; on
    one thread CPU time is compared as well. A ratio that other programs made unreliable is "not measurable". The
    efficiency is the speed-up over the MACs reduction: 1 where time fell in proportion to the MACs. With --data the
    accuracy on the test images is measured in torch, and in onnxruntime and OpenVINO if these are installed and can run
    the networks.
    """
    if len(networks) < 2:
        raise click.UsageError("name at least two networks: DENSE SLIM")
    for _, path in named(networks):
        check_source(path)
    from slimnet.benchmark import cells, left_out
    from slimnet.benchmark.layers import without_layers

    settings = measuring.settings()
    known = images_known(networks)
    images = data.trained_on(known).load()
    with tempfile.TemporaryDirectory() as folder:
        contenders, example = _ready(networks, network, images, known, Path(folder))
        for why in left_out(contenders, settings):
            terminal.note(f"{why}; it is left out")
        for why in without_layers(cells(contenders, settings)) if settings.layers else ():
            terminal.note(why)
        comparison = measured(contenders, example, settings, images)
    if report is not None:
        with terminal.working("Drawing the report"):
            write_report(report, named(networks)[1][1], contenders, example, comparison)
    if as_json:
        terminal.emit(comparison.to_dict())
    else:
        _show(comparison, settings)
        if report is not None:
            terminal.note(f"the report is {report}")
            say_next(f"open {report} in a browser")
        else:
            say_next("the same command with --report FILE.html draws this as a page")


def _ready(
    networks: tuple[str, ...], network: Network, images: ImageData | None, known: ImageSpec | None, folder: Path
) -> tuple[list[Contender], torch.Tensor]:
    """The contenders, each with an ONNX file if it can have one, and their inputs."""
    from slimnet.benchmark import with_onnx

    pairs = named(networks)
    loading = [Phase(f"reading {name}", weight=0.1) for name, _ in pairs]
    exporting = [Phase(f"ONNX file of {name}") for name, _ in pairs]
    with progress_of("Loading", [*loading, *exporting]) as progress:
        contenders = []
        for number, (name, path) in enumerate(pairs):
            progress.at(number)
            contenders.append(contender(name, path, network))
        example = example_for(contenders, network, images, known)
        ready = []
        for number, each in enumerate(contenders, len(pairs)):
            progress.at(number)
            ready.append(with_onnx(each, example, folder))
        return ready, example


def _show(comparison: Comparison, settings: Settings) -> None:
    console = terminal.result()
    console.print(comparison_tables.overview(comparison))
    for title, table in comparison_tables.layers(comparison):
        console.print(f"\n{title}\n", soft_wrap=True)
        console.print(table)
    where = comparison.environment
    counts = " and ".join(map(str, settings.thread_counts))
    lines = [
        f"medians on {counts} of {where.cores} cores of {where.cpu}; in brackets the 95 % interval of the ratio",
        ", ".join(f"{name} {version}" for name, version in {**where.software, "Python": where.python}.items())
        + f", {where.os}",
        *([f"{where.gpu}, {where.driver}"] if where.gpu else []),
        *([f"MACs counted by {comparison.counted_by}"] if comparison.counted_by else []),
    ]
    console.print("\n" + "\n".join(lines), style="dim", soft_wrap=True)
    comparison_tables.note_doubts(comparison)
    note_slow_widths(comparison)
