"""slimnet finetune: train the network of a bundle further, into another bundle."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from slimnet_cli.options.data import Labelled, data_options
from slimnet_cli.options.groups import GroupedCommand, in_group
from slimnet_cli.options.machine import Machine
from slimnet_cli.options.network import Network
from slimnet_cli.options.paths import FORCE, existing_source, new_bundle
from slimnet_cli.options.shared import architecture_option, as_one, json_option
from slimnet_cli.options.sources import Source, bundle_arguments, find_source
from slimnet_cli.options.tuning import step_options
from slimnet_cli.output import terminal
from slimnet_cli.output.next_step import show_next
from slimnet_cli.progress.live_run import stop_on_interrupt

if TYPE_CHECKING:
    from slimnet.data import ImageData
    from slimnet.training import Accuracy, Recipe
    from slimnet.training.finetune import Finetuning

EXAMPLES = """\b
Examples:
  slimnet finetune half/ --data cifar10 --epochs 20 --flips --crop 4 -o tuned/
  slimnet finetune half/ --data photos/ --image-size 64 --validate 0.1 -o tuned/
"""

tuning, machine = in_group("Training"), in_group("Machine")


@dataclass(frozen=True)
class Schedule:
    """How a network is fine-tuned; `validate` is the share of the training images by which its weights are chosen."""

    epochs: int
    iterations: int | None
    optimiser: str
    lr: float
    cosine: bool
    l2: float
    batch_size: int
    flips: bool
    crop: int
    tests: int
    validate: float
    seed: int

    def recipe(self, arch: str, data: str, images: ImageData) -> Recipe:
        """The recipe of the training on these images.

        Raises:
            UsageError: a value out of its range.
        """
        from slimnet.training.finetune import retraining

        steps = self.iterations or max(1, self.epochs * len(images.x_train) // self.batch_size)
        return retraining(
            arch,
            data,
            steps,
            optimiser=self.optimiser,
            lr=self.lr,
            cosine=self.cosine,
            l2=self.l2,
            batch_size=self.batch_size,
            flips=self.flips,
            crop=self.crop,
            seed=self.seed,
        )


OPTIONS = (
    tuning("--epochs", type=click.IntRange(1), default=10, show_default=True, help="Passes over the training images."),
    tuning("--iterations", type=click.IntRange(1), help="Optimiser steps, in place of --epochs."),
    tuning("--optimiser", type=click.Choice(("sgd", "adam")), default="sgd", show_default=True, help="The optimiser."),
    tuning("--lr", type=float, default=0.01, show_default=True, help="The learning rate at the beginning."),
    tuning("--cosine/--constant", default=True, show_default=True, help="Let the rate fall to 0 along a cosine."),
    *step_options(tuning),
    tuning("--tests", type=click.IntRange(1), default=10, show_default=True, help="Evaluations, evenly spaced."),
    tuning(
        "--validate",
        type=click.FloatRange(0, 1, max_open=True),
        default=0.0,
        show_default=True,
        metavar="SHARE",
        help="Hold out this share of the training images, and keep the weights with the lowest error on them.",
    ),
    tuning("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the order of the images."),
)

schedule_options = as_one("schedule", Schedule, OPTIONS)
"""Add the options; the command gets them as one `schedule`."""


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned network: its bundle, its accuracy before and after, and the error at each evaluation."""

    bundle: Path
    accuracies: tuple[Accuracy, Accuracy]
    course: tuple[tuple[int, float], ...]
    chosen: int
    seconds: float


@click.command(cls=GroupedCommand, epilog=EXAMPLES, short_help="Train a slim network further.")
@click.argument("bundle", metavar="BUNDLE", callback=existing_source)
@functools.partial(architecture_option, checkpoints=False, references=True)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    callback=new_bundle,
    help="The new bundle.",
)
@FORCE
@schedule_options
@data_options
@machine("--device", metavar="DEVICE", help="cpu, cuda or cuda:N.  [default: a GPU where there is one]")
@machine("--threads", type=click.IntRange(1), help="Threads of the CPU; a small network is fastest on one.")
@json_option
def finetune(
    bundle: str,
    network: Network,
    out: Path,
    force: bool,
    schedule: Schedule,
    data: Labelled,
    device: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train the network of a bundle further, such as one slimmed to a budget, and write it as another bundle.

    The accuracy on the test images is measured before and after. With --validate some training images are held out, and
    the weights with the lowest error on them are kept. Without --validate the last weights are kept, and the
    evaluations during the training are on the test images. The certificate of the new bundle says that the weights were
    trained after it was measured.

    After Ctrl-C or a crash the same command resumes; until the end its state is in a folder next to DIR, which is
    deleted to begin anew with other settings. To train a checkpoint that is not a bundle further, use slimnet train
    --from.
    """
    source = find_source(bundle, network)
    if source.blueprint is None:
        raise click.UsageError(f"{bundle} is not a bundle; a checkpoint is trained further with slimnet train --from")
    if data.source is None:
        raise click.UsageError("give the labelled images with --data")
    chosen = Machine(device=device).chosen_device()
    images = source.labelled(data).load()
    assert images is not None, "they were named"
    tuned = tune(source, out, schedule, images, data.source, chosen, threads, force=force)
    if as_json:
        before, after = tuned.accuracies
        terminal.emit(
            {
                "bundle": str(tuned.bundle),
                "accuracy": {"before": before.top1, "after": after.top1, "n": after.n},
                "course": tuned.course,
                "iteration": tuned.chosen,
                "seconds": tuned.seconds,
            }
        )
    else:
        _show(tuned, validated=bool(schedule.validate))


def tune(
    source: Source,
    out: Path,
    schedule: Schedule,
    images: ImageData,
    name: str,
    device: str,
    threads: int | None,
    *,
    force: bool,
) -> Tuned:
    """Fine-tune the network of a bundle, and write it; with `force` an earlier bundle there is replaced.

    Raises:
        click.Abort: interrupted; the same call goes on.
    """
    from slimnet.bundle.bundle import save
    from slimnet.data.validation import hold_out
    from slimnet.modules.digest import weights_digest
    from slimnet.training import evaluate
    from slimnet.training.finetune import Finetuning
    from slimnet.training.loop import resume_checks

    model = source.load()
    seen = hold_out(images, schedule.validate) if schedule.validate else images
    recipe = schedule.recipe(source.path.name, name, seen)
    with state_folder(out, weights_digest(model)) as folder:
        with other_settings_explained(folder):
            training = Finetuning(
                model,
                recipe,
                seen,
                evaluations=min(schedule.tests, recipe.iterations),
                keep_best=bool(schedule.validate),
                folder=folder,
                threads=threads,
                device=device,
            )
        before = evaluate(model.to(device), images)
        train_to_the_end(training)
        tuned = training.model.eval()
        if training.best is not None:
            with resume_checks.unfit_refused():
                resume_checks.load_weights(tuned, training.best)
        after = evaluate(tuned, images)
        with terminal.working("Writing the bundle"):
            save(tuned.cpu().eval(), out, like=source.path, images=images.spec, overwrite=force)
    lowest = min(training.course, key=lambda point: point.error) if schedule.validate else training.course[-1]
    course = tuple((point.iteration, point.error) for point in training.course)
    return Tuned(out, (before, after), course, lowest.iteration, training.run.seconds)


@contextmanager
def state_folder(out: Path, weights: str) -> Iterator[Path]:
    """The folder beside a bundle that holds the state of its fine-tuning until it is written, held by this process.

    Raises:
        UsageError: another process is at work there.
    """
    from slimnet.errors import UsageError
    from slimnet.storage.files import held

    # The digest of the weights in its name: the state of another network's training is not taken for this one's.
    folder = out.with_name(f"{out.name}.{weights[:8]}.finetune")
    folder.mkdir(exist_ok=True)
    with held(folder, UsageError, "fine-tuning"):
        try:
            yield folder
        except BaseException:
            if not any(folder.glob("*.pt")):
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


@contextmanager
def other_settings_explained(folder: Path) -> Iterator[None]:
    """Name the folder of the state in errors about an interrupted fine-tuning with other settings.

    Raises:
        UsageError: saying what differs, and how to go on or begin anew.
    """
    from slimnet.errors import UsageError
    from slimnet.training.loop.resume_checks import OtherRunError

    try:
        yield
    except OtherRunError as error:
        raise UsageError(
            f"{folder} holds an interrupted fine-tuning with other settings: {error.problem}; give the same options "
            "as then to resume it, or delete that folder to begin anew"
        ) from error


def train_to_the_end(training: Finetuning) -> None:
    """Train with progress.

    Raises:
        click.Abort: interrupted; the state was saved.
    """
    total = training.run.recipe.iterations
    with terminal.progress("Fine-tuning", total) as advance, stop_on_interrupt(training.run.stop):
        for progress in training:
            errors = f", error {100 * training.course[-1].error:.2f} %" if training.course else ""
            advance(progress.iteration, f"loss {progress.loss:.3f}, accuracy {100 * progress.accuracy:.0f} %{errors}")
    if training.run.iteration < total:
        training.save()
        terminal.note(f"interrupted after {training.run.iteration} of {total} iterations; the same command resumes")
        raise click.Abort


def _show(tuned: Tuned, *, validated: bool) -> None:
    before, after = tuned.accuracies
    rows = [(f"{iteration:,}", f"{100 * error:.2f} %") for iteration, error in tuned.course]
    console = terminal.result()
    where = "held-out images" if validated else "test images"
    console.print(terminal.table(("iterations", f"error on {where}"), rows, right=(0, 1)))
    console.print(
        f"\naccuracy on {after.n:,} test images: {100 * before.top1:.2f} → {100 * after.top1:.2f} %, with the weights "
        f"after {tuned.chosen:,} iterations\nwritten to {tuned.bundle}",
        soft_wrap=True,
    )
    show_next("export", *bundle_arguments(tuned.bundle), "-o", f"{tuned.bundle.resolve().name}.onnx")
