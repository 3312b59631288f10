"""slimnet benchmark: what a slim network gains on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slimnet_cli import terminal
from slimnet_cli.network import Network
from slimnet_cli.options import json_option, network_options, positive_numbers

if TYPE_CHECKING:
    from slimnet.benchmark import Comparison, Contender, Settings

EXAMPLES = """\b
Examples:
  slimnet benchmark runs/demo/dense/model.onnx runs/demo/slim/model.onnx
  slimnet benchmark resnet56.th slim/ --arch resnet56 --batch 1,8,32 --threads 1
"""


@click.command(epilog=EXAMPLES)
@click.argument("dense")
@click.argument("slim")
@network_options(required=False)
@click.option(
    "--batch", "batches", default="1,32", show_default=True, callback=positive_numbers, help="Batch sizes."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads to run on.  [default: every core]")
@click.option(
    "--seconds", type=float, default=4.0, show_default=True, help="Time for each runtime and batch size."
)
@json_option
def benchmark(
    dense: str,
    slim: str,
    network: Network | None,
    batches: tuple[int, ...],
    threads: int | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Compare two networks: size, multiply-accumulates and latency.

    DENSE and SLIM are bundles, .onnx files, or checkpoints of the network that --arch names. torch and onnxruntime
    are timed on the CPU, the two networks taking turns, wherever both can run.
    """
    from slimnet.benchmark import Settings, usable_cores

    settings = Settings(batches, threads or usable_cores(), seconds)
    ...
