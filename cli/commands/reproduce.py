"""slimnet reproduce: the paper's tables and figures, our results next to the paper's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text
from slimnet_cli.commands.train import train
from slimnet_cli.options.recipe import SHRINK_EVERY
from slimnet_cli.options.shared import as_one, json_option
from slimnet_cli.options.workers import WorkerOptions, worker_options
from slimnet_cli.output import terminal
from slimnet_cli.output.destinations import refuse_foreign_page
from slimnet_cli.output.exit_codes import run_command
from slimnet_cli.output.next_step import say_next
from slimnet_cli.output.simulated_figures import simulate, write
from slimnet_cli.progress.reproduction_run import Reproduction, Task, tasks_of

if TYPE_CHECKING:
    from slimnet.reproduction.catalogue import Entry
    from slimnet.reproduction.scales import Scale
    from slimnet.reproduction.variation import Variation
    from slimnet.training.recipe.recipe import Precision

PAGE = "report.html"

EXAMPLES = """\b
Examples:
  slimnet reproduce table1 --shrink --dry-run
  slimnet reproduce table1-adam-l2-1e-3-cifar10 --shrink --data-root data -o runs/paper
  slimnet reproduce table4 --shrink --crop 4 --pool-after 1,2,4 --data-root data -o runs/shifted
  slimnet reproduce table1 table3 --scale small --data-root data -o runs/paper --threads 1
  slimnet reproduce trends --scale middle --seeds 2 --shrink --data-root data -o runs/paper --threads 1
  slimnet reproduce all --budget 25m --data-root data -o runs/paper --concurrent 4
  slimnet reproduce table7 --ray auto --gpus 0.25 --data-root /shared/data -o /shared/paper
"""


@dataclass(frozen=True)
class Extent:
    """The extent of a reproduction and its changes to the recipes, as in `Variation`; the budget is in seconds."""

    scale: Scale
    seeds: int
    budget: float | None
    shrink: bool
    precision: Precision | None
    crop: int
    pool_after: tuple[int, ...] | None

    @property
    def variation(self) -> Variation:
        """The changes to the paper's recipes."""
        from slimnet.reproduction.variation import Variation

        return Variation(SHRINK_EVERY if self.shrink else 0, self.precision, self.crop, self.pool_after)


def seconds(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Turn "25m" into seconds."""
    if text is None:
        return None
    from slimnet.errors import UsageError
    from slimnet.reproduction.timing import seconds_in

    try:
        return seconds_in(text)
    except UsageError as error:
        raise click.BadParameter(str(error)) from error


def positions(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Turn "1,2,4" into the numbers of convolutions."""
    if text is None:
        return None
    from slimnet.models.basicnet import WIDTHS

    convolutions = range(1, len(WIDTHS["64-1x"]) + 1)
    known = {str(number): number for number in convolutions}
    if unknown := [part for part in text.split(",") if part.strip() not in known]:
        raise click.BadParameter(
            f"{unknown[0]!r} is not a convolution of BasicNet; use numbers from 1 to {convolutions[-1]}, as in 1,3,5"
        )
    return tuple(sorted({known[part.strip()] for part in text.split(",")}))


EXTENT = (
    click.option(
        "--scale",
        type=click.Choice(("full", "middle", "small")),
        default="full",
        show_default=True,
        help="The paper's networks and schedule, narrower and shorter ones, or ones for a quick check.",
    ),
    click.option(
        "--seeds",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Number of seeds, each a run of every cell.",
    ),
    click.option(
        "--shrink",
        is_flag=True,
        help=f"Remove dead filters during training, every {SHRINK_EVERY} iterations, which saves time.",
    ),
    click.option(
        "--precision",
        type=click.Choice(("fp32", "bf16")),
        help="bf16 computes in bfloat16 with float32 weights, unlike the paper; for processors with bfloat16 units.",
    ),
    click.option(
        "--crop",
        type=click.IntRange(0),
        default=0,
        metavar="PIXELS",
        help="Shift each image at random by up to this many pixels, which the paper does not mention.",
    ),
    click.option(
        "--pool-after",
        callback=positions,
        metavar="NUMBERS",
        help="The convolutions that BasicNet pools after, which the paper does not print.  [default: 1,3,5]",
    ),
    click.option(
        "--budget", callback=seconds, metavar="TIME", help="Only the most valuable runs that fit into 90s, 25m, 2h, ..."
    ),
)


extent_options = as_one("extent", Extent, EXTENT)
"""Add the options; the command gets them as one `extent`."""


@click.command(epilog=EXAMPLES, short_help="Reproduce the paper's tables and figures.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--dry-run", is_flag=True, help="List the cells with their data and estimated times; run nothing.")
@extent_options
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default="runs/paper", show_default=True, help="Output folder."
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    default="data",
    show_default=True,
    help="Where the data sets are: cifar10.npz, tiny-imagenet-200/, imagenet/, ...",
)
@worker_options
@json_option
def reproduce(
    names: Sequence[str],
    dry_run: bool,
    extent: Extent,
    out: Path,
    data_root: Path,
    workforce: WorkerOptions,
    as_json: bool,
) -> None:
    """Train the networks of the paper's tables and figures, and show our results next to the paper's.

    NAME is table1 ... table10, supp-table1 ... supp-table4, fig2 ... fig5, supp-fig1 ... supp-fig3, or all; trends
    selects the networks on which the paper's claims are tested. A single network has the name that --dry-run --json
    gives, such as table1-adam-l2-1e-3-cifar10.

    Figure 4 and supplementary figure 3 are simulated, in full at every scale, in about a minute.

    Each cell is a training run in its own folder under DIR. The same command resumes where an earlier one stopped, and
    a run that appears in two tables is trained once. On Ctrl-C, or at the end of the --budget, the current runs save
    and stop. DIR/report.html, .md and .json have the tables, and DIR/results/ one file for each cell.

    Each current run has a line on stderr: iteration, loss, dead filters, and remaining time. In a file
    (nohup slimnet reproduce table1 2> log &) lines are ten seconds apart at first and five minutes in the end; the
    output of each run is in DIR/runs/KEY.log. A run that is killed resumes from its last checkpoint, which is about
    a minute old at most.

    Runs with --shrink, --precision, --crop or --pool-after are marked in tables, and not mixed with others in a folder.

    With --shrink, the times of a dry run assume that as many filters die as in the paper, after a tenth of its
    iterations: a run that is shorter is taken to keep its width.

    At the middle scale networks are narrower and runs shorter, but on all images with the paper's learning rates, so
    that networks learn; a run takes about twenty minutes on one core. The small scale is a quick check: images are
    fewer and smaller too, and λ and learning rates larger to compensate. Every number of both scales is marked.
    """
    if not dry_run:
        _refuse_foreign(out)
    from slimnet.reproduction.catalogue import wanted

    chosen = wanted(names)
    tasks = tasks_of(entries_of(chosen), extent.scale, extent.seeds, extent.variation)
    reproduction = Reproduction(out, data_root, extent.scale, workforce, train_here)
    if dry_run:
        forecast(reproduction, tasks, chosen, as_json)
        return
    left = run(reproduction, tasks, extent.budget)
    show(reproduction, tasks, chosen, as_json)
    if left:
        terminal.note(f"some runs are not finished; the same command resumes them in {out}")
    if left and extent.budget is None:
        raise click.Abort
    troubles = reproduction.troubles(tasks)
    for trouble in troubles:
        terminal.note(trouble)
    if troubles:
        raise click.exceptions.Exit(1)


def _refuse_foreign(out: Path) -> None:
    """Refuse a folder with results of another command, or with a page that slimnet did not write.

    Raises:
        click.UsageError: naming what is in the way.
    """
    from slimnet.storage.written_folders import KINDS

    for kind in KINDS.values():
        if kind.is_at(out):
            raise click.UsageError(f"{out} holds a {kind.name}; name another folder")
    if (out / PAGE).exists():
        refuse_foreign_page(out / PAGE)


def train_here(arguments: Sequence[str]) -> int:
    """Run `slimnet train` in this process; returns its exit code."""
    return run_command(train, arguments)


def entries_of(names: Sequence[str]) -> list[Entry]:
    """The networks in these tables and figures, and if requested those of the trends, each once."""
    from slimnet.reproduction.catalogue import TRENDS, printed
    from slimnet.reproduction.trends import cells

    every = [entry for each in printed(names) for entry in each.entries]
    return list({entry.name: entry for entry in (*every, *(cells() if TRENDS in names else ()))}.values())


def run(reproduction: Reproduction, tasks: Sequence[Task], budget: float | None) -> bool:
    """Run the missing runs that can be run; returns whether some of them remain.

    Raises:
        DataError: the images of all of it are missing.
    """
    missing = [task for task in tasks if not reproduction.done(task)]
    possible = with_images(reproduction, missing)
    if not possible:
        return False
    if budget is None:
        return reproduction.train(possible, budget)
    fitting = within_budget(reproduction, possible, budget)
    terminal.note(f"{len(fitting)} of {len(missing)} runs fit into the budget")
    return reproduction.train(fitting, budget) or len(fitting) < len(possible)


def with_images(reproduction: Reproduction, missing: Sequence[Task]) -> list[Task]:
    """The missing runs whose images are available; the others are reported.

    Raises:
        DataError: the images of all of them are missing.
    """
    from slimnet.errors import DataError

    possible = [task for task in missing if reproduction.can_run(task)]
    lacking = {task.entries[0].data for task in missing} - {task.entries[0].data for task in possible}
    if missing and not possible:
        raise DataError("; ".join(reproduction.lacking[name] for name in sorted(lacking)))
    for name in sorted(lacking):
        terminal.note(f"left out: {reproduction.lacking[name]}")
    return possible


def within_budget(reproduction: Reproduction, possible: Sequence[Task], budget: float) -> list[Task]:
    """The runs that fit into a budget in seconds."""
    from slimnet.reproduction.timing import chosen

    costs = reproduction.seconds(possible)
    fitting = chosen({task.key: costs[task.key] for task in possible}, budget)
    return [task for task in possible if task.key in fitting]


def show(reproduction: Reproduction, tasks: Sequence[Task], names: Sequence[str], as_json: bool) -> None:
    """Write the report as HTML, Markdown and JSON, and print its tables."""
    from slimnet.report.paper.page import write_paper_report
    from slimnet.reproduction.markdown import Found, document, markdown
    from slimnet.reproduction.results import current, read_all

    simulations = simulate(names, reproduction.out)
    with terminal.working("Drawing the report"):
        results = current(read_all(reproduction.results, reproduction.scale))
        found = Found(tuple(names), reproduction.scale, results, simulations)
        text, known = markdown(found), document(found)
        write(reproduction.out / "report.md", text + "\n")
        write(reproduction.out / "report.json", json.dumps(known, indent=1, ensure_ascii=False) + "\n")
        histories = reproduction.histories(tasks, names)
        page = write_paper_report(found, histories, reproduction.out / PAGE)
    if as_json:
        terminal.emit(known)
    else:
        click.echo(terminal.shown(text))
    # On stdout is Markdown or JSON alone.
    terminal.note(f"report: {page}\nnext: open it in a browser")


def forecast(reproduction: Reproduction, tasks: Sequence[Task], names: Sequence[str], as_json: bool) -> None:
    """List the cells with their data, their state and their estimated time."""
    from slimnet.reproduction.catalogue import SIMULATED

    for name in (each for each in names if each in SIMULATED):
        terminal.note(f"{name} is simulated: no images, no training, about half a minute")
    if not tasks and not as_json:
        return
    costs = reproduction.seconds(tasks)
    rows = [_cell(reproduction, entry, tasks, costs) for entry in entries_of(names)]
    unique = {task.key: costs[task.key] for task in tasks}
    if as_json:
        machine = reproduction.machine()
        terminal.emit({"machine": machine, "runs": len(unique), "seconds": sum(unique.values()), "cells": rows})
        return
    waiting = sum(costs[task.key] for task in tasks if not reproduction.done(task))
    seeds = 1 + max((task.recipe.seed for task in tasks), default=0)
    _show_forecast(rows, seeds, len(unique), sum(unique.values()), waiting)


def _show_forecast(rows: Sequence[dict[str, Any]], seeds: int, runs: int, seconds: float, waiting: float) -> None:
    """The cells as a table, their missing data, and their estimated time."""
    from slimnet.durations import in_words

    console = terminal.result()
    time = "time" if seeds == 1 else f"time of {seeds} runs"
    console.print(terminal.table(("table", "row", "data", time, "state"), [_line(row) for row in rows], right=(3,)))
    for needs in dict.fromkeys(row["needs"] for row in rows if row["needs"]):
        console.print(f"\n{needs}")
    console.print(
        f"\n{runs} runs cover these {len(rows)} cells: {in_words(seconds)} here, one after the "
        f"other, {in_words(waiting)} of which remain",
        style="dim",
    )
    say_next("the same command without --dry-run")


def _cell(reproduction: Reproduction, entry: Entry, tasks: Sequence[Task], costs: dict[str, float]) -> dict[str, Any]:
    """A cell as JSON."""
    own = [task for task in tasks if entry.name in task.names]
    done = sum(reproduction.done(task) for task in own)
    needs = reproduction.lacking.get(entry.data)
    if entry.of is not None:
        needs = f"{entry.of} is quoted by the paper there: slimnet compare runs that method"
    return {
        "cell": entry.name,
        "table": entry.table,
        "row": entry.row,
        "data": entry.data,
        "scale": reproduction.scale,
        "runs": len(own),
        "done": done,
        "seconds": sum(costs[task.key] for task in own) if own else None,
        "needs": needs,
    }


def _line(cell: dict[str, Any]) -> list[str | Text]:
    from slimnet.durations import in_words

    if not cell["runs"]:
        state = "quoted"
    elif cell["done"] == cell["runs"]:
        state = "done"
    else:
        state = f"{cell['done']} of {cell['runs']} runs" + (", no images" if cell["needs"] else "")
    time = "–" if cell["seconds"] is None else in_words(cell["seconds"])
    return [cell["table"], cell["row"], cell["data"], time, state]
