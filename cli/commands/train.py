"""slimnet train: train a network until filters die."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.data import Reading, reading_options
from slimnet_cli.options.groups import GroupedCommand, in_group
from slimnet_cli.options.machine import Machine, machine_options
from slimnet_cli.options.paths import FORCE, existing, existing_images, work_folder
from slimnet_cli.options.recipe import RecipeOptions, recipe_options
from slimnet_cli.options.run_outputs import Keeping, keeping_options
from slimnet_cli.options.shared import as_one, json_option
from slimnet_cli.options.sources import run_arguments
from slimnet_cli.output import terminal
from slimnet_cli.output.destinations import put_in_place, refuse_missing_folder, refuse_taken_files, working_folder
from slimnet_cli.progress.live_run import until_input_ends_option
from slimnet_cli.progress.training_run import Finished, Request, single_error_report

if TYPE_CHECKING:
    from slimnet.training.run.savings import Savings

EXAMPLES = """\b
Examples:
  slimnet train digits -o digits.pt
  slimnet train digits -o runs/digits --iterations 8000 --l2 1e-3 --seed 1
  slimnet train --resume runs/digits
  slimnet train --resume runs/digits --iterations 12000
  slimnet train photos.npz --arch vgg16 --batch-size 64 --iterations 20000 -o runs/photos
  slimnet train photos.npz --from photos.pt --l2 1e-4 --iterations 5000 -o runs/sparser
  torchrun --nproc-per-node 2 -m slimnet_cli train digits -o runs/digits
"""
output = in_group("Output")


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the run is: in a new folder or file, which may replace an earlier run, or in the one that is resumed."""

    out: str | None
    force: bool
    resume: str | None

    def destination(self) -> tuple[Path, bool]:
        """The path of the run, and whether it is a folder.

        Raises:
            click.UsageError: nowhere, two places, or one that cannot be written.
        """
        if (self.out is None) == (self.resume is None):
            raise click.UsageError(
                "give the run's folder with -o DIR (or -o FILE.pt), or the run to resume with --resume DIR"
            )
        if self.resume is not None:
            return Path(self.resume), True
        assert self.out is not None
        if self.out.endswith(".pt"):
            refuse_missing_folder(self.out)
            refuse_taken_files([self.out], force=self.force)
            return Path(self.out), False
        return Path(self.out), True


place_options = as_one(
    "place",
    Place,
    (
        output(
            "-o",
            "--out",
            metavar="DIR|FILE.pt",
            callback=work_folder("run"),
            help="The run's folder, or a file for the trained network alone.",
        ),
        FORCE,
        output("--resume", metavar="DIR", callback=existing, help="Resume the run in this folder."),
    ),
)


@click.command(cls=GroupedCommand, epilog=EXAMPLES, short_help="Train a network until filters die.")
@click.argument("data", required=False, callback=existing_images)
@place_options
@keeping_options
@recipe_options
@reading_options
@machine_options
@until_input_ends_option
@json_option
def train(
    data: str | None,
    place: Place,
    keeping: Keeping,
    requested: RecipeOptions,
    reading: Reading,
    machine: Machine,
    as_json: bool,
) -> None:
    """Train with Adam and L2 regularisation, as in the paper, and store everything that is needed to resume.

    DATA is "digits" (embedded), cifar10 or cifar100 (torchvision's folder in ./data, or ./data/cifar10.npz, or
    cifar10:FOLDER for another than ./data), a FILE.npz with x_train, y_train, x_test and y_test (uint8, N×H×W×C), or
    a folder of images, with train/ and test/ or val/ in it and a folder for each class in them, or in the layouts of
    TinyImageNet and ImageNet. In a folder, links to files are followed, and train/, test/ and the folders of classes
    may be links. Links that would count images twice (to a folder that holds the data set, or to an image or folder in
    it), deeper links to folders and broken links are refused, or left out with --skip-broken.

    Defaults for the digits are those of the demo, a narrow basicnet and 2,500 iterations; for other data those of the
    paper on CIFAR, basicnet, Adam with L2 1e-4 and 406,250 iterations of 40 images. The number of classes and
    of colour channels comes from the data.

    With --validate some training images are held out, and the network is evaluated on them while it trains; with
    --tests alone it is evaluated on the test images. Evaluations do not change the training. The weights of the best
    evaluation are kept as model_best.pt, next to model.pt; slimnet slim DIR/model_best.pt slims them.

    DIR becomes the run's folder: recipe, metrics, checkpoints, the trained model.pt and a report; with --shrink also
    slim/, a bundle of the network without the removed filters, certified against model.pt, with a record of what was
    set to zero in training. Ctrl-C finishes the current step, saves and exits, and so do SIGTERM and a closed terminal
    (without nohup); after that, or after a crash, --resume continues bit for bit. --resume with --iterations makes the
    run longer or shorter: drops keep their iterations, or are those of --drops from here on, and a cosine falls to 0 at
    the new end; the model of a finished run of N iterations is kept as model_N.pt. If the data has moved, DATA with
    --resume is its new place.
    """
    from slimnet.data.sources import absolute_source
    from slimnet.storage.written_folders import RUN
    from slimnet.torch_state.process import denormals_flushed
    from slimnet.training.loop.distributed import joined, lost_peers_reported

    path, folder = place.destination()
    work = working_folder(path, force=place.force) if folder else path
    if folder and data is not None:
        # A run may be resumed, or slimmed, in another working directory.
        data = absolute_source(data)
    keeping.refuse_impossible(folder=folder, held_out=bool(requested.fields.get("held_out")))
    with (
        denormals_flushed(),
        joined(machine.chosen_device()) as ranks,
        single_error_report(ranks),
        lost_peers_reported(ranks),
    ):
        request = Request(data, work, place.resume is not None, requested, reading, machine, keeping, ranks)
        finished = request.in_folder() if folder else request.to_file()
        if finished is not None:
            put_in_place(work, path, RUN)
            finished = finished.moved(work, path)
            _show(finished, as_json)


def _show(finished: Finished, as_json: bool) -> None:
    run, accuracy, dead = finished.run, finished.accuracy, finished.run.sparsity()
    if as_json:
        paths = {name: getattr(finished, name) for name in ("checkpoint", "folder", "report", "bundle")}
        document: dict[str, Any] = {name: path and str(path) for name, path in paths.items()}
        document |= {"accuracy": dataclasses.asdict(accuracy), "dead_filters": dead, "seconds": run.seconds}
        document |= {"best": best_as_data(finished), "course": course_as_data(finished)}
        document |= {"savings": finished.savings and dataclasses.asdict(finished.savings)}
        terminal.emit(document | {"recipe": dataclasses.asdict(run.recipe)})
        return
    outputs = {"slim network": finished.bundle, "report": finished.report}
    lines = [
        f"{100 * accuracy.top1:.2f} % accuracy on {accuracy.n} test images, {100 * dead:.0f} % of the filters dead",
        *saved_in_words(finished.savings),
        *best_in_words(finished),
        f"saved to {finished.checkpoint}",
        *(f"{name}: {path}" for name, path in outputs.items() if path),
        f"next: {_next(finished)}",
    ]
    terminal.result().print("\n".join(lines), soft_wrap=True)


def best_in_words(finished: Finished) -> list[str]:
    """The best evaluation of a run that was validated, in a line."""
    best, data = finished.best, finished.run.validation
    if best is None:
        return []
    chosen = "held-out" if finished.run.recipe.held_out else "test"
    line = (
        f"best of {len(finished.course)} evaluations on {len(data.x_test):,} {chosen} images: "
        f"{100 * best.validation_accuracy:.2f} % after {best.iteration:,} iterations"
    )
    return [line, f"weights of the best evaluation: {finished.best_checkpoint}"]


def best_as_data(finished: Finished) -> dict[str, Any] | None:
    """The best evaluation for machines."""
    best = finished.best
    if best is None:
        return None
    images = "held out" if finished.run.recipe.held_out else "test"
    return {"checkpoint": str(finished.best_checkpoint), "images": images} | dataclasses.asdict(best)


def course_as_data(finished: Finished) -> list[tuple[int, float]]:
    """The error, 0..1, at each evaluation, as slimnet finetune has it."""
    return [(each.iteration, 1 - (each.validation_accuracy or 0.0)) for each in finished.course]


def saved_in_words(savings: Savings | None) -> list[str]:
    """The savings by the removal of filters during the run, in lines."""
    if savings is None:
        return []
    share = 100 * savings.macs_left / max(1, savings.macs)
    lines = [f"{savings.channels_removed:,} channels removed in training, {share:.0f} % of the MACs left"]
    if savings.first_ms is not None and savings.last_ms is not None:
        lines.append(f"a step took {savings.last_ms:.3g} ms at the end, {savings.first_ms:.3g} ms at first")
    if savings.revived is not None:
        known = savings.revived and savings.revived_alive is not None
        alive = f", {savings.revived_alive:,} alive at its end" if known else ""
        lines.append(f"{savings.revived:,} removed channels came back in the dense run beside it{alive}")
    return lines


def _next(finished: Finished) -> str:
    """The command that slims the trained network; a run's folder knows the network and the images."""
    recipe = finished.run.recipe
    if finished.folder is not None:
        return shlex.join(["slimnet", "slim", *run_arguments(finished.folder, recipe), "-o", "slim/"])
    arguments = ["slimnet", "slim", str(finished.checkpoint), "--arch", recipe.arch]
    if recipe.arch_args:
        arguments += ["--arch-args", json.dumps(recipe.arch_args)]
    arguments += ["--data", recipe.data]
    if recipe.image_size is not None:
        arguments += ["--image-size", str(recipe.image_size)]
    return shlex.join([*arguments, "-o", "slim/"])
