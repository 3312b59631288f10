"""slimnet compare: methods of choosing channels under the same conditions."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from slimnet_cli.options.comparison import Contest, contest_options
from slimnet_cli.options.data import Labelled, data_options
from slimnet_cli.options.groups import GroupedCommand
from slimnet_cli.options.machine import Machine
from slimnet_cli.options.network import Network
from slimnet_cli.options.paths import FORCE, existing_source, page_option, work_folder
from slimnet_cli.options.shared import architecture_option, json_option
from slimnet_cli.options.sources import find_source
from slimnet_cli.output import method_table, terminal
from slimnet_cli.output.destinations import put_in_place, working_folder
from slimnet_cli.output.next_step import show_next

if TYPE_CHECKING:
    from slimnet.comparison import Results, Study

EXAMPLES = """\b
Examples:
  slimnet compare net.pt --arch vgg16 --data cifar10 --budget 0.75,0.5 --finetune 2000 -o runs/compared
  slimnet compare resnet56.th --arch resnet56 --data cifar10 --normalise imagenet --budget 0.5
  slimnet compare net.pt --arch vgg16 --data cifar10 --methods group-l2 --budget 0.5 --engine torch-pruning
  slimnet compare net.pt --arch basicnet --arch-args '{"in_channels": 1}' --data digits --budget 0.1 --json
"""


@click.command(cls=GroupedCommand, epilog=EXAMPLES, short_help="Compare methods of choosing channels.")
@click.argument("checkpoint", metavar="CKPT|RUN|BUNDLE", callback=existing_source)
@functools.partial(architecture_option, references=True)
@data_options
@contest_options
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    callback=work_folder("comparison"),
    help="Folder of the comparison; it can be resumed.",
)
@FORCE
@page_option("--report", what="Write an HTML report as well")
@json_option
def compare(
    checkpoint: str,
    network: Network,
    data: Labelled,
    contest: Contest,
    out: Path | None,
    force: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """Compare methods of choosing channels on a trained network, under the same conditions.

    CKPT is a checkpoint, which needs --arch; the folder of a RUN and a BUNDLE store their architecture.

    Each method ranks the channels and removes the fewest that bring the network within the budget. The same
    surgery removes them, the same fine-tuning follows, and error and latency are measured in the same way.
    implicit, our method, also gets a row without a budget: only dead channels are removed, and the outputs do not
    change. With --sparsify the network is trained with L1 on γ before liu2017 chooses, as in its paper, and the table
    says so.

    DIR holds one JSON file for each row, all of them together in results.json, the slim networks as ONNX, and the
    state of unfinished rows. After Ctrl-C or a crash the same command resumes where it stopped; methods and
    budgets may be added.
    """
    from slimnet.comparison import Study
    from slimnet.comparison.folder import RESULTS, write
    from slimnet.storage.written_folders import COMPARISON

    source = find_source(checkpoint, network)
    data = replace(source.labelled(data), optional=False)
    if data.source is None:
        raise click.UsageError("give the test images with --data")
    settings = contest.settings(source.network.arch or source.path.name, data.source)
    device = Machine(device=contest.device).chosen_device()
    images = data.load()
    assert images is not None
    with terminal.working("Reading the network"):
        model = source.load().to(device)
    with folder(out and working_folder(out, force=force)) as place:
        with terminal.working("Analysing the network"):
            study = Study(source.path.name, model, images, settings, place)
        try:
            watch(study)
        except KeyboardInterrupt:
            if out is not None:
                terminal.note(f"interrupted; the same command resumes it in {out}")
            raise
        results = study.results()
        if out is not None:
            write(place / RESULTS, results.to_dict())
            put_in_place(place, out, COMPARISON)
    if report is not None:
        draw(results, report)
    if as_json:
        terminal.emit(results.to_dict())
    else:
        method_table.show(terminal.result(), results)
        show_next("slim", *source.arguments, *_best(results), *data.arguments, "-o", "slim/")


def _best(results: Results) -> list[str]:
    """The options of `slim` for the method with the lowest error at the largest budget; none without a budget."""
    from slimnet_cli.options.budget import UNITS

    from slimnet.comparison.settings import ENGINE

    ours = [row for row in results.outcomes if row.engine == ENGINE]
    tried = [row for row in ours if row.budget is not None and row.budget.unit in UNITS]
    if not tried:
        return []
    left = max(row.budget.left for row in tried if row.budget is not None)
    same = [row for row in tried if row.budget is not None and row.budget.left == left]
    best = min(same, key=lambda row: row.course[-1].error if row.course else row.error)
    assert best.budget is not None
    return [f"--target-{best.budget.unit}", f"{left:g}", "--method", best.method]


def draw(results: Results, path: Path) -> None:
    """Write the page of a comparison."""
    from slimnet.report import write_methods_report

    with terminal.working("Drawing the report"):
        write_methods_report(results, path)
    terminal.note(f"report written to {path}")


def watch(study: Study) -> None:
    """Run the missing trials, and show progress."""
    with terminal.progress("Comparing", len(study.cells)) as advance:
        for moment in study:
            advance(moment.done, moment.doing)


@contextlib.contextmanager
def folder(out: Path | None) -> Iterator[Path]:
    """The folder given, or a temporary one."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)
