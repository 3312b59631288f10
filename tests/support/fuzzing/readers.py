"""What slimnet reads, by the kind of specimen: calls in Python, and commands as they are typed."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import slimnet_cli
import torch
from slimnet_cli.options.workers import WorkerOptions
from slimnet_cli.output.simulated_figures import known

import slimnet
from fuzzing.specimens import CHECKPOINT_ARGS, PRINTED, compare, ladder, save_empty
from slimnet.checkpoint import load_checkpoint
from slimnet.data import load_data
from slimnet.errors import SlimnetError, UsageError
from slimnet.methods.iterative_pruning import RECORD, LadderRecord
from slimnet.models import build
from slimnet.models.architecture import BUILTIN_ARCHITECTURES
from slimnet.report.methods.iterative_page import render_ladder
from slimnet.report.paper.page import render_paper
from slimnet.reproduction import results
from slimnet.reproduction.markdown import Found, document, markdown
from slimnet.storage.records import read_record
from slimnet.sweep import Store, read_grid
from slimnet.sweep.workers import InTurn
from slimnet.training import Recipe
from slimnet.training.run import checkpoints
from slimnet.training.run.images_file import read_images
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


def draw_results(folder: Path, _: Path) -> str:
    """The pages about every file of results of the paper's networks."""
    found = Found(PRINTED, "small", results.read_all(folder / "paper" / "results", "small"), {})
    document(found)
    return render_paper(found, {}) + markdown(found)


def draw_ladder(folder: Path, _: Path) -> str:
    """The page about a ladder's record."""
    record = read_record(LadderRecord, folder / "ladder" / RECORD, UsageError, others_ignored=True)
    # A ladder without its dense network is given one before it is shown.
    return render_ladder("ladder", record.rungs) if any(rung.name == "dense" for rung in record.rungs) else ""


def climb(folder: Path, _: Path) -> None:
    """Climb a ladder whose rungs are there, with a network that may be spoilt."""
    with mock.patch("slimnet.methods.iterative_pruning.save", save_empty):
        command(*ladder(folder))


def is_short(recipe: Path) -> bool:
    """Whether a recipe that can be read asks for a moment's work: a long run or a wide network is no fault."""
    with contextlib.suppress(OSError, UnicodeDecodeError, SlimnetError):
        found = Recipe.from_json(recipe.read_text())
        within = found.iterations <= LONGEST_RUN and found.batch_size <= LARGEST_BATCH
        return within and parameters_of(found) <= LARGEST_NETWORK
    return True


def parameters_of(recipe: Recipe) -> int:
    """The number of parameters of a recipe's network; 0 if it is not one of slimnet's own."""
    if recipe.arch not in BUILTIN_ARCHITECTURES:
        return 0
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(recipe.arch, recipe.arch_args).parameters())


def train(folder: Path, recipe: Path, *arguments: object) -> None:
    """Train, unless that is long."""
    if is_short(recipe):
        with contextlib.chdir(folder):
            command("train", *arguments, "--device", "cpu", "--threads", 1, "--no-report")


def sweep(folder: Path, spoilt: Path) -> None:
    """Go on with a sweep in this process; a grid is its user's own, and may run what it names."""
    lines = (folder / "sweep" / "runs").glob("*/recipe.json")
    if spoilt.name != "grid.toml" and all(map(is_short, lines)):
        with mock.patch.object(WorkerOptions, "workers", return_value=InTurn(slimnet_cli.run)):
            command("sweep", folder / "grid.toml", "-o", folder / "sweep", "--device", "cpu", "--threads", 1)


def reproduce(folder: Path, *arguments: object) -> None:
    """Ask for the tables of a folder whose runs are done; there are no images to train anything with."""
    paper = folder / "paper"
    with mock.patch("slimnet.reproduction.timing.step_seconds", return_value=1.0):
        command("reproduce", *PRINTED, "--scale", "small", "-o", paper, "--data-root", paper / "none", *arguments)


WARM = ("digits", "--iterations", 2, "--batch-size", 8)
LONGEST_RUN, LARGEST_BATCH, LARGEST_NETWORK = 20, 4096, 100_000

READERS: dict[str, tuple[Reader, ...]] = {
    "bundle": (
        lambda folder, _: slimnet.load(folder / "slim"),
        lambda folder, _: slimnet.verify_bundle(folder / "slim"),
        lambda folder, _: command("verify", folder / "slim"),
        lambda folder, _: command("export", folder / "slim", "-o", folder / "out.onnx", "--force"),
    ),
    "nameless": (lambda folder, _: slimnet.verify_bundle(folder / "slim"),),
    "checkpoint": (
        lambda _, spoilt: load_checkpoint(spoilt, "basicnet", CHECKPOINT_ARGS),
        lambda _, spoilt: command("inspect", spoilt, "--arch", "resnet20"),
    ),
    "npz": (lambda folder, _: load_data(str(folder / "data.npz")),),
    "images": (lambda folder, _: load_data(str(folder / "images"), image_size=8, cache=folder / "cache"),),
    "run": (
        lambda folder, _: recipe_of(folder / "run"),
        lambda folder, _: read_images(folder / "run"),
        lambda folder, _: read_history(folder / "run"),
        lambda folder, _: command("report", folder / "run"),
        lambda folder, _: command("analyse", folder / "run", "--report", folder / "analysed.html"),
        lambda folder, _: checkpoints.newest(folder / "run" / "checkpoints"),
        lambda folder, _: train(folder, folder / "run" / "recipe.json", "--resume", folder / "run"),
    ),
    "recipe": (
        lambda folder, _: train(folder, folder / "recipe.json", "--recipe", folder / "recipe.json", "-o", folder / "a"),
        lambda folder, _: train(folder, folder / "none", *WARM, "--from", folder / "warm.pt", "-o", folder / "b"),
    ),
    "sweep": (
        lambda folder, _: read_grid(folder / "grid.toml"),
        lambda folder, _: Store(folder / "sweep" / "sweep.sqlite").rows(),
        sweep,
    ),
    "ladder": (draw_ladder, climb),
    "comparison": (
        lambda folder, _: command("report", folder / "methods.json"),
        lambda folder, _: command(*compare(folder)),
    ),
    "paper": (
        draw_results,
        lambda folder, _: known(folder / "paper" / "fig4.json"),
        lambda folder, _: reproduce(folder, "--dry-run"),
        lambda folder, _: reproduce(folder),
    ),
    "benchmark": (lambda folder, _: command("report", folder / "speed.json"),),
}
