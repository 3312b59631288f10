"""slimnet train: train a network until filters have died of their own."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli import terminal
from slimnet_cli.options import architecture_options, json_option
from slimnet_cli.outputs import refuse_missing_folder

if TYPE_CHECKING:
    from slimnet.data import ImageData
    from slimnet.training import Recipe, TrainingRun

EXAMPLES = """\b
Examples:
  slimnet train digits -o digits.pt
  slimnet train digits -o digits.pt --iterations 8000 --l2 1e-3 --seed 1
  slimnet train photos.npz --arch vgg16 --arch-args '{"num_classes": 10}' -o photos.pt
"""


@click.command(epilog=EXAMPLES, short_help="Train until filters die of their own.")
@click.argument("data")
@click.option("-o", "--out", required=True, metavar="FILE.pt", help="Where the checkpoint goes.")
@architecture_options(required=False)
@click.option("--iterations", type=int, help="Optimiser steps.")
@click.option("--l2", type=float, help="Strength of L2 regularisation; under Adam it is what kills filters.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
@json_option
def train(
    data: str,
    out: str,
    arch: str | None,
    arch_args: dict[str, Any],
    iterations: int | None,
    l2: float | None,
    seed: int,
    as_json: bool,
) -> None:
    """Train with Adam and L2 regularisation, as the paper does, and save a checkpoint.

    DATA is "digits" (embedded) or a FILE.npz with x_train, y_train, x_test and y_test (uint8, N×H×W×C).
    What is not said is as in the demo: a narrow basicnet. Ctrl-C finishes the step at hand, saves a
    checkpoint and leaves.
    """
    from slimnet_cli import live

    from slimnet import training
    from slimnet.data import load_data

    refuse_missing_folder(out)
    with terminal.working("Reading"):
        images = load_data(data)
        wishes = {"iterations": iterations, "l2": l2, "seed": seed}
        recipe = recipe_for(images, data, arch, arch_args, wishes)
        # The narrow network of the demo is slower on two threads than on one.
        threads = 1 if arch is None else None
        run = training.train(recipe, images, every=live.STEPS_BETWEEN_REPORTS, threads=threads)
    with live.stop_on_interrupt() as stopped:
        live.watch(run, stopped)
        path = training.save_checkpoint(run.model, out, recipe, run.iteration)
    if run.iteration < recipe.iterations:
        terminal.note(f"interrupted after {run.iteration} of {recipe.iterations} iterations; saved to {path}")
        raise click.Abort
    _tell(run, images, path, as_json)


def recipe_for(
    images: ImageData, source: str, arch: str | None, arch_args: dict[str, Any], wishes: dict[str, Any]
) -> Recipe:
    """The demo's recipe, with the network made to fit the data and whatever else was wished for."""
    from slimnet.training import DIGITS_DEMO

    defaults: dict[str, Any] = {}
    if arch in (None, DIGITS_DEMO.arch):
        fitting = {"num_classes": len(images.classes), "in_channels": images.channels}
        defaults = (DIGITS_DEMO.arch_args if arch is None else {}) | fitting
    given = {name: value for name, value in wishes.items() if value is not None}
    # The learning rate drops at the same part of a longer or shorter run.
    base = DIGITS_DEMO.lasting(given.get("iterations", DIGITS_DEMO.iterations))
    return dataclasses.replace(base, arch=arch or base.arch, arch_args=defaults | arch_args, data=source, **given)


def _tell(run: TrainingRun, images: ImageData, path: Path, as_json: bool) -> None:
    from slimnet.training import evaluate, sparsity_by_gamma

    accuracy, dead = evaluate(run.model, images), sparsity_by_gamma(run.model)
    if as_json:
        document = {"checkpoint": str(path), "accuracy": dataclasses.asdict(accuracy), "dead_filters": dead}
        terminal.emit(document | {"recipe": dataclasses.asdict(run.recipe)})
        return
    right = f"{100 * accuracy.top1:.2f} % of {accuracy.n} test images right"
    terminal.result().print(
        f"{right}, {100 * dead:.0f} % of the filters dead\nsaved to {path}\nnext: {_next(run.recipe, path)}",
        soft_wrap=True,
    )


def _next(recipe: Recipe, path: Path) -> str:
    """The command that slims what was trained."""
    arguments = ["slimnet", "slim", str(path), "--arch", recipe.arch, "--data", recipe.data, "-o", "slim/"]
    if recipe.arch_args:
        arguments[5:5] = ["--arch-args", json.dumps(recipe.arch_args)]
    return shlex.join(arguments)
