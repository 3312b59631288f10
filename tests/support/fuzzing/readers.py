"""What slimnet reads, by the kind of specimen: calls in Python, and commands as they are typed."""

from collections.abc import Callable
from pathlib import Path

import slimnet_cli
from bundles import sign

import slimnet
from fuzzing.specimens import CHECKPOINT_ARGS
from slimnet.checkpoint import load_checkpoint
from slimnet.data import load_data
from slimnet.errors import UsageError
from slimnet.methods.iterative_pruning import RECORD, LadderRecord
from slimnet.report.methods.iterative_page import render_ladder
from slimnet.report.paper.page import render_paper
from slimnet.reproduction import results
from slimnet.reproduction.markdown import Found, document, markdown
from slimnet.storage.records import read_record
from slimnet.sweep import Store, read_grid
from slimnet.training.run import checkpoints
from slimnet.training.run.run_folder import read_history, recipe_of

Reader = Callable[[Path, Path], object]
"""Reads a specimen's folder of which one file was spoilt; the file is given as well."""


class CommandError(Exception):
    """A command that ended otherwise than with 0, 1 or 2."""


def command(*arguments: object) -> None:
    """Run a command in this process.

    Raises:
        CommandError: its exit code is none of slimnet's.
    """
    code = slimnet_cli.run(list(map(str, arguments)))
    if code not in (0, 1, 2):
        raise CommandError(f"{arguments[0]} ended with exit code {code}")


def resigned(folder: Path, spoilt: Path) -> Path:
    """The bundle in a folder, with a manifest that is true of the spoilt file, as somebody who means harm writes it."""
    if spoilt.name != "manifest.json":
        sign(folder / "slim")
    return folder / "slim"


def draw_results(folder: Path, _: Path) -> None:
    """The pages about every file of results of the paper's networks."""
    found = Found(("table4",), "small", results.read_all(folder / "paper" / "results", "small"), {})
    render_paper(found, {})
    markdown(found)
    document(found)


def draw_ladder(folder: Path, _: Path) -> None:
    """The page about a ladder's record."""
    record = read_record(LadderRecord, folder / "ladder" / RECORD, UsageError, others_ignored=True)
    # A ladder without its dense network is given one before it is shown.
    if any(rung.name == "dense" for rung in record.rungs):
        render_ladder("ladder", record.rungs)


READERS: dict[str, tuple[Reader, ...]] = {
    "bundle": (
        lambda folder, spoilt: slimnet.load(resigned(folder, spoilt)),
        lambda folder, spoilt: slimnet.verify_bundle(resigned(folder, spoilt)),
        lambda folder, spoilt: command("verify", resigned(folder, spoilt)),
    ),
    "nameless": (lambda folder, spoilt: slimnet.verify_bundle(resigned(folder, spoilt)),),
    "checkpoint": (
        lambda _, spoilt: load_checkpoint(spoilt, "basicnet", CHECKPOINT_ARGS),
        lambda _, spoilt: command("inspect", spoilt, "--arch", "resnet20"),
    ),
    "npz": (lambda folder, _: load_data(str(folder / "data.npz")),),
    "images": (lambda folder, _: load_data(str(folder / "images"), image_size=8, cache=folder / "cache"),),
    "run": (
        lambda folder, _: recipe_of(folder / "run"),
        lambda folder, _: read_history(folder / "run"),
        lambda folder, _: checkpoints.newest(folder / "run" / "checkpoints"),
        lambda folder, _: command("report", folder / "run"),
    ),
    "sweep": (
        lambda folder, _: read_grid(folder / "grid.toml"),
        lambda folder, _: Store(folder / "sweep" / "sweep.sqlite").rows(),
    ),
    "ladder": (draw_ladder,),
    "comparison": (lambda folder, _: command("report", folder / "comparison"),),
    "paper": (draw_results,),
    "benchmark": (lambda folder, _: command("report", folder / "speed.json"),),
}
