"""slimnet sweep: train every recipe of a grid, and store the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text
from slimnet_cli.options.paths import existing
from slimnet_cli.options.shared import json_option
from slimnet_cli.options.sources import run_arguments
from slimnet_cli.options.workers import WorkerOptions, worker_options
from slimnet_cli.output import terminal
from slimnet_cli.output.next_step import show_next

from slimnet.storage.folder_names import TABLE

if TYPE_CHECKING:
    from slimnet.sweep import Cell, Row, Store
    from slimnet.sweep.workers import Workers

EXAMPLES = """\b
Examples:
  slimnet sweep grid.toml -o runs/lambda
  slimnet sweep grid.toml -o runs/lambda --concurrent 2 --threads 1
  slimnet sweep grid.toml -o /shared/lambda --ray auto --threads 2 --gpus 0.25

\b
A grid:
  [base]
  arch = "basicnet"
  data = "digits"
  iterations = 2500
  arch_args = {width = 0.25, in_channels = 1}
  [grid]
  l2 = [1e-3, 1e-2]
  seed = [0, 1, 2]
"""


def sweep_folder(_: click.Context, __: click.Parameter, path: Path) -> Path:
    """Refuse a folder that holds something else than a sweep.

    Raises:
        UsageError: naming what is in the way.
    """
    from slimnet.errors import UsageError
    from slimnet.storage.written_folders import SWEEP

    SWEEP.refuse_taken(path, UsageError)
    return path


@click.command(epilog=EXAMPLES, short_help="Train with every combination of settings in a grid.")
@click.argument("grid", metavar="GRID.toml", callback=existing)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    callback=sweep_folder,
    help="The folder for the runs.",
)
@click.option("--retry", is_flag=True, help="Train failed cells again.")
@worker_options
@json_option
def sweep(grid: str, out: Path, retry: bool, workforce: WorkerOptions, as_json: bool) -> None:
    """Train with every combination of the settings in a grid, and store the results.

    Each cell (combination) is a run in its own folder under DIR, and a row of DIR/sweep.sqlite. The same command
    resumes where an earlier one stopped; finished cells are not repeated. On Ctrl-C the current runs save and stop; a
    run that is killed resumes from its last checkpoint. Each current run has a line on stderr: iteration, loss, dead
    filters, and remaining time; its own output is in DIR/runs/KEY.log. A run has no report until `slimnet analyse RUN
    --report FILE.html` writes one.

    [base] holds the settings that all cells share, [grid] lists of values of which every combination is run, and
    [[cells]] variants of the base.
    """
    from slimnet.errors import UsageError
    from slimnet.storage.files import held
    from slimnet.sweep import Store, read_grid

    cells = read_grid(grid)
    workers = workforce.workers()
    out.mkdir(parents=True, exist_ok=True)
    with held(out, UsageError, "sweeping"):
        store = Store(out / TABLE)
        store.add(cells)
        store.wait_again(failed=retry)
        keys = [cell.key for cell in cells]
        stopped = _run(store, cells, out, workers, workforce.arguments)
        _show(store.rows(keys), out, as_json)
    if stopped:
        terminal.note(f"interrupted; the same command resumes it in {out}")
        raise click.Abort
    if any(row.state == "failed" for row in store.rows(keys)):
        raise click.exceptions.Exit(1)


def _run(store: Store, cells: Sequence[Cell], out: Path, workers: Workers, options: tuple[str, ...]) -> bool:
    """Train the cells of the grid that are not done; returns whether it was interrupted."""
    from slimnet_cli.progress.sweep_queue import train_waiting

    from slimnet.sweep.jobs import Job

    recipes = {cell.key: cell.recipe.to_json() for cell in cells}
    waiting = [row for row in store.rows(list(recipes)) if row.state == "waiting"]
    runs = out.absolute() / "runs"
    jobs = [Job(row.key, recipes[row.key], runs / row.key, Path.cwd(), options) for row in waiting]
    return train_waiting(store, jobs, {row.key: row.varied for row in waiting}, workers)


def _show(rows: list[Row], out: Path, as_json: bool) -> None:
    from slimnet.training.run.run_folder import recipe_of

    if as_json:
        terminal.emit([_document(row, out) for row in rows])
        return
    headings = ("cell", "state", "error", "dead filters", "run")
    console = terminal.result()
    console.print(terminal.table(headings, [_line(row) for row in rows], right=(2, 3)))
    if best := _best(rows):
        run = out / "runs" / best.key
        show_next("slim", *run_arguments(run, recipe_of(run)), "-o", "slim/")


def _best(rows: Sequence[Row]) -> Row | None:
    """The finished cell with the lowest error."""
    from slimnet.sweep import Ending

    finished = [(Ending.of(row.result).accuracy.top1, row) for row in rows if row.result is not None]
    return max(finished, key=lambda each: each[0])[1] if finished else None


def _document(row: Row, out: Path) -> dict[str, Any]:
    return {
        "key": row.key,
        "varied": row.varied,
        "state": row.state,
        "error": row.error,
        "folder": str(out / "runs" / row.key),
        "seconds": None if row.started is None or row.finished is None else row.finished - row.started,
        "result": row.result,
    }


def _line(row: Row) -> list[str | Text]:
    state = Text(row.state if row.error is None else f"{row.state}: {row.error}")
    if row.result is None:
        return [row.varied, state, "", "", row.key]
    from slimnet.sweep import Ending

    ending = Ending.of(row.result)
    error = f"{100 * (1 - ending.accuracy.top1):.2f} %"
    return [row.varied, state, error, f"{100 * ending.dead_filters:.1f} %", row.key]
