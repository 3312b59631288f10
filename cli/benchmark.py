"""slimnet benchmark: what a slim network gains on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
from slimnet_cli import before_after, terminal
from slimnet_cli.contenders import contender, example_for, measured
from slimnet_cli.network import Network
from slimnet_cli.options import json_option, network_options, positive_numbers

if TYPE_CHECKING:
    from slimnet.benchmark import Comparison, Settings

EXAMPLES = """\b
Examples:
  slimnet benchmark runs/demo/dense/model.onnx runs/demo/slim/model.onnx
  slimnet benchmark resnet56.th slim/ --arch resnet56 --batch 1,8,32 --threads 1
"""


@click.command(epilog=EXAMPLES, short_help="Compare two networks: size, MACs, latency.")
@click.argument("dense")
@click.argument("slim")
@network_options(required=False)
@click.option("--batch", "batches", default="1,32", show_default=True, callback=positive_numbers, help="Batch sizes.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads to run on.  [default: every core]")
@click.option("--seconds", type=float, default=4.0, show_default=True, help="Time for each runtime and batch size.")
@json_option
def benchmark(
    dense: str,
    slim: str,
    network: Network,
    batches: tuple[int, ...],
    threads: int | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Compare two networks: size, multiply-accumulates and latency.

    DENSE and SLIM are bundles, .onnx files, or checkpoints of the network that --arch names. torch and
    onnxruntime are timed on the CPU, the two networks taking turns, wherever both can run.
    """
    from slimnet.benchmark import Settings, shared_runtimes, usable_cores, with_onnx

    settings = Settings(batches, threads or usable_cores(), seconds)
    with tempfile.TemporaryDirectory() as folder:
        with terminal.working("Loading"):
            pair = [contender("dense", dense, network), contender("slim", slim, network)]
            shared_runtimes(pair)
            example = example_for(pair, network)
            pair = [with_onnx(each, example, Path(folder)) for each in pair]
        comparison = measured(pair, example, settings)
    if as_json:
        terminal.emit(comparison.to_dict())
    else:
        _show(comparison, settings)


def _show(comparison: Comparison, settings: Settings) -> None:
    console = terminal.result()
    console.print(before_after.comparison_table(comparison))
    where = comparison.environment
    threads = f"{settings.threads} of {where.cores} cores of {where.cpu}"
    console.print(
        f"\nmedians on {threads}; in brackets the 95 % interval of the ratio\n"
        f"torch {where.torch}, onnxruntime {where.onnxruntime}, Python {where.python}, {where.os}",
        style="dim",
        soft_wrap=True,
    )
    if where.busy:
        terminal.note(f"other programs kept {where.other_work} cores busy: the times are too long, the ratios fair")
