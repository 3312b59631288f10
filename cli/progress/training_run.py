"""A training run of the command line: to a file or in a folder, in one process or in several."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.data import Reading
from slimnet_cli.options.machine import Machine
from slimnet_cli.options.recipe import RecipeOptions
from slimnet_cli.options.run_outputs import Keeping
from slimnet_cli.options.sources import run_arguments
from slimnet_cli.output import terminal
from slimnet_cli.output.option_names import with_options
from slimnet_cli.output.run_header import show_header
from slimnet_cli.progress import live_run
from slimnet_cli.progress.signals import Terminated

if TYPE_CHECKING:
    from slimnet.data import ImageData
    from slimnet.training import Accuracy, Progress, Recipe, TrainingRun
    from slimnet.training.loop.distributed import Ranks
    from slimnet.training.run.resumable_run import KeptRun
    from slimnet.training.run.run_folder import RunFolder
    from slimnet.training.run.savings import Savings
    from slimnet.training.run.validation import Best

    Opened = tuple[RunFolder | None, Callable[[Any], TrainingRun], int]
    """The folder of a run, in the first process; a function that creates the run; the number of its evaluations."""

EXAMPLES = 4
"""The number of images with which a network is traced."""

GPU_STEPS_BETWEEN_REPORTS = 100
"""Iterations between reports on a GPU, where steps are short, since a report synchronises with the device."""


@dataclass(frozen=True)
class Finished:
    """A finished run; outputs that were not written are None, and so are savings if nothing was removed.

    `best` is the best evaluation of a run that was validated, and `course` are the reports of all its evaluations.
    """

    run: TrainingRun
    accuracy: Accuracy
    checkpoint: Path
    folder: Path | None = None
    report: Path | None = None
    bundle: Path | None = None
    savings: Savings | None = None
    best: Best | None = None
    course: tuple[Progress, ...] = ()

    def moved(self, old: Path, new: Path) -> Finished:
        """The same run after its folder was renamed."""

        def there(path: Path) -> Path:
            return new / path.relative_to(old) if path.is_relative_to(old) else path

        return replace(
            self,
            checkpoint=there(self.checkpoint),
            folder=self.folder and there(self.folder),
            report=self.report and there(self.report),
            bundle=self.bundle and there(self.bundle),
        )

    @property
    def best_checkpoint(self) -> Path:
        """The weights of the best evaluation."""
        from slimnet.training.run.validation import BEST

        return self.checkpoint.with_name(BEST)


@dataclass(frozen=True)
class Request:
    """The request of a command line, in one of the processes that train together.

    `path` is a checkpoint file, or a run's folder, which is resumed if `resume` is true.
    """

    data: str | None
    path: Path
    resume: bool
    requested: RecipeOptions
    reading: Reading
    machine: Machine
    keeping: Keeping
    ranks: Ranks

    def to_file(self) -> Finished | None:
        """Train and write a checkpoint; None in all but the first process.

        Raises:
            click.Abort: interrupted; the checkpoint says how far it got.
        """
        from slimnet.training import save_checkpoint
        from slimnet.training.run.savings import Savings

        recipe, images = self._fresh()
        run = self._begin(recipe, images, self._threads(recipe))(None)
        reports: list[Progress] = []
        self._train(run, run, [reports.append])
        if not self.ranks.first:
            return None
        save_checkpoint(run.dense_model(), self.path, recipe, run.iteration)
        if run.iteration < recipe.iterations:
            terminal.note(f"interrupted after {run.iteration} of {recipe.iterations} iterations; saved to {self.path}")
            raise click.Abort
        return Finished(run, accuracy_of(run), self.path, savings=Savings.of(reports))

    def in_folder(self) -> Finished | None:
        """Train in a folder, to the end or until interrupted; None in all but the first process.

        Raises:
            click.Abort: interrupted; the run can go on.
        """
        from slimnet.training.run.run_folder import read_history
        from slimnet.training.run.savings import Savings

        with self._reopened() if self.resume else self._created() as (folder, begin, evaluations):
            kept = self._kept(folder, begin, evaluations)
            with self.keeping.listeners(folder and folder.path, kept.run.iteration) as listeners:
                self._train(kept.run, kept, listeners, kept.first_reports)
            checkpoint = kept.close()
            if kept.run.iteration < kept.recipe.iterations:
                self._note_resume_command(kept)
                raise click.Abort
            if checkpoint is None:
                return None
            accuracy = accuracy_of(kept.run)
            report = self.keeping.write_report(self.path, kept.run, accuracy)
            bundle = write_bundle(kept.run, checkpoint) if kept.recipe.shrink_every else None
            reports = read_history(self.path).progress
            course = tuple(each for each in reports if each.validation_accuracy is not None)
            best = kept.validation.best if kept.validation else None
            savings = Savings.of(reports)
            return Finished(kept.run, accuracy, checkpoint, self.path, report, bundle, savings, best, course)

    @contextmanager
    def _created(self) -> Iterator[Opened]:
        from slimnet.training.run.run_folder import create_run, refuse_taken

        if self.ranks.first:
            refuse_taken(self.path)
        recipe, images = self._fresh()
        # The run is created before the folder, so that a run that cannot be created leaves no folder.
        run = self._begin(recipe, images, self._threads(recipe))(None)
        with ExitStack() as stack:
            folder = stack.enter_context(create_run(self.path, recipe)) if self.ranks.first else None
            yield folder, lambda _: run, self.keeping.evaluations(recipe, None)

    @contextmanager
    def _reopened(self) -> Iterator[Opened]:
        from slimnet.training.run.run_folder import reopen_run

        with ExitStack() as stack:
            folder = stack.enter_context(reopen_run(self.path)) if self.ranks.first else None
            known = (folder.recipe, folder.last_session(), folder.reached()) if folder else None
            begun, session, done = self.ranks.as_first(known)
            recipe = self.requested.changed(begun, self.data, done)
            self._refuse_missing(recipe.data)
            images = self._images(recipe.data, recipe.image_size)
            threads = session.threads if session else self._threads(recipe)
            begin = self._begin(recipe, images, threads, session.every if session else None)
            yield folder, begin, self.keeping.evaluations(recipe, session)

    def _fresh(self) -> tuple[Recipe, ImageData]:
        """The recipe of a new run, and its data."""
        source = self.requested.source(self.data)
        images = self._images(source, self.requested.image_size(source))
        recipe = self.requested.recipe(images, source)
        self._note_ranks(recipe)
        self._predict(recipe)
        return recipe, images

    def _refuse_missing(self, source: str) -> None:
        """Refuse to resume a run whose data is no longer where it was.

        Raises:
            DataError: saying how to name its new place.
        """
        from slimnet.data.sources import place_of
        from slimnet.errors import DataError

        place = place_of(source)
        if self.data is None and place is not None and not place.exists():
            raise DataError(
                f"{place}: the run's data is not there; if it has moved, name its new place: "
                f"slimnet train --resume {shlex.quote(str(self.path))} DATA"
            )

    def _images(self, source: str, size: int | None) -> ImageData:
        with self.ranks.one_before_the_others("reading the data"):
            return self.reading.load(source, size)

    def _begin(
        self, recipe: Recipe, images: ImageData, threads: int | None, every: int | None = None
    ) -> Callable[[Any], TrainingRun]:
        """A function that creates the run, from a state or new."""
        from slimnet.training import train

        device = self.ranks.device if self.ranks.count > 1 else self.machine.chosen_device()
        usual = live_run.STEPS_BETWEEN_REPORTS if str(device) == "cpu" else GPU_STEPS_BETWEEN_REPORTS
        tuning = self.machine.tuning(threads)

        def begin(state: Any) -> TrainingRun:
            with terminal.working("Building the network"):
                return train(
                    recipe,
                    images,
                    device=device,
                    every=every or usual,
                    patience=live_run.PATIENCE,
                    tuning=tuning,
                    ranks=self.ranks,
                    shadow=self.keeping.shadow,
                    state=state,
                )

        return begin

    def _kept(self, folder: RunFolder | None, begin: Callable[[Any], TrainingRun], evaluations: int) -> KeptRun:
        from slimnet.training.run.resumable_run import Interval, KeptRun

        interval = Interval(self.keeping.checkpoint_every)
        kept = KeptRun(folder, begin, ranks=self.ranks, interval=interval, evaluations=evaluations)
        if folder is not None and self.resume:
            for path in (*kept.damaged, *(kept.validation.damaged if kept.validation else ())):
                terminal.note(f"a checkpoint is damaged and was set aside as {path}")
            if kept.begun_as is not None:
                self._note_changes(kept, kept.begun_as)
            terminal.note(f"resuming from iteration {kept.run.iteration} of {kept.recipe.iterations}")
        return kept

    @staticmethod
    def _note_changes(kept: KeptRun, begun: Recipe) -> None:
        """Print what differs from the recipe that the run had before: the place of its data, its schedule."""
        from slimnet.training.recipe.continuation import change_in_words

        if kept.recipe.data != begun.data:
            terminal.note(f"the run's data is {kept.recipe.data} from now on; it was {begun.data}")
        if kept.recipe != replace(begun, data=kept.recipe.data):
            terminal.note(change_in_words(begun, kept.recipe, kept.run.iteration))

    def _train(
        self, run: TrainingRun, reports: TrainingRun | KeptRun, listeners: Any = (), earlier: Iterable[Progress] = ()
    ) -> None:
        """Train to the end, or to a stop request; only the first process shows it."""
        with live_run.stop_on_interrupt(run.stop, patient=self.ranks.count > 1):
            if self.ranks.first:
                show_header(run)
                live_run.watch(reports, listeners, earlier)
            else:
                for _ in reports:
                    pass

    @staticmethod
    def _threads(recipe: Recipe) -> int | None:
        """One thread for the demo's narrow network, which is slower on two; None for others."""
        from slimnet.training import DIGITS_DEMO

        return 1 if (recipe.arch, recipe.arch_args) == (DIGITS_DEMO.arch, DIGITS_DEMO.arch_args) else None

    def _note_ranks(self, recipe: Recipe) -> None:
        if self.ranks.count > 1 and self.ranks.first:
            each = recipe.batch_size // self.ranks.count
            terminal.note(f"{self.ranks.count} processes share each batch of {recipe.batch_size} images, {each} each")

    def _predict(self, recipe: Recipe) -> None:
        """Print a forecast of the iterations until γ are dead, from the values of a warm start."""
        if recipe.warm_start is None or not self.ranks.first:
            return
        from slimnet.training.warm_start import first_network, iterations_to_kill

        forecast = iterations_to_kill(first_network(recipe), recipe)
        if forecast.median is None:
            terminal.note("nothing in this recipe kills filters: it has no regulariser that moves γ")
            return
        whole = "never" if forecast.all is None else f"in {forecast.all}"
        terminal.note(
            f"without gradient from the loss, half of the γ will be dead in {forecast.median} iterations and all of "
            f"them {whole}, at the first learning rate; this run has {recipe.iterations}"
        )

    def _note_resume_command(self, kept: KeptRun) -> None:
        if self.ranks.first:
            words = run_arguments(self.path, kept.recipe)
            terminal.note(
                f"interrupted after {kept.run.iteration} of {kept.recipe.iterations} iterations; "
                f"resume with: slimnet train --resume {shlex.join(words)}"
            )


def accuracy_of(run: TrainingRun) -> Accuracy:
    """The accuracy of the network on the test images."""
    from slimnet.training import evaluate

    with terminal.working("Measuring the accuracy"):
        return evaluate(run.model, run.data)


def write_bundle(run: TrainingRun, checkpoint: Path) -> Path | None:
    """Write the slim network of a run that shrank, next to its model; None with a note if it cannot be made."""
    import slimnet
    from slimnet.bundle.bundle import save
    from slimnet.data import Batches
    from slimnet.errors import SlimnetError
    from slimnet.training.run.run_folder import BUNDLE

    folder = checkpoint.parent / BUNDLE
    if folder.exists():
        # A finished run that was resumed.
        return folder
    try:
        with terminal.working("Slimming and exporting"):
            example, _ = next(run.data.batches("test", EXAMPLES))
            slimmed = slimnet.slim(run.dense_model().cpu().eval(), example.cpu(), loader=Batches(run.data))
            return save(slimmed, folder, source=checkpoint.name, projections=run.projections, images=run.data.spec)
    except SlimnetError as error:
        terminal.note(f"no bundle is written: {error}")
        return None


@contextmanager
def single_error_report(ranks: Ranks) -> Iterator[None]:
    """Let one process report the error if several processes fail together."""
    from slimnet.errors import SlimnetError

    try:
        yield
    except (SlimnetError, click.ClickException) as error:
        if ranks.count == 1:
            raise
        ranks.say_once(partial(print_error, error))
        raise click.exceptions.Exit(error.exit_code) from error
    except Terminated as ended:
        if ranks.count > 1:
            why = f"ended by {ended.signal.name}: another of the {ranks.count} processes of this run has ended, or"
            ranks.say_once(partial(terminal.failed, f"{why} torchrun was asked to end"))
        raise


def print_error(error: Exception) -> int:
    """Print an error in the form of the command line."""
    if isinstance(error, click.ClickException):
        return terminal.misused(error)
    return terminal.failed(with_options(str(error)))
