"""The optional outputs of a run: the report, TensorBoard's events, and the interval of checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from slimnet_cli.options.groups import in_group
from slimnet_cli.options.shared import as_one
from slimnet_cli.output import terminal

if TYPE_CHECKING:
    from slimnet.training import Accuracy, Progress, Recipe, TrainingRun
    from slimnet.training.run.sessions import Session

output = in_group("Output")

EVALUATIONS = 10
"""The default number of evaluations of a run that holds out images."""

TENSORBOARD = "tensorboard"
SERIES = (
    *("loss", "accuracy", "validation_accuracy", "sparsity", "epoch"),
    *("macs_if_slimmed", "macs_left", "revived", "revived_alive"),
)

OPTIONS = (
    output(
        "--checkpoint-every",
        type=click.IntRange(1),
        metavar="N",
        help="Iterations between checkpoints.  [default: about a minute]",
    ),
    output("--report/--no-report", default=True, help="Write DIR/report.html at the end.  [default: yes]"),
    output(
        "--shadow",
        is_flag=True,
        help="With --shrink: also train the dense network, and count the removed filters that come back to life there, "
        "and how many of them are alive at the end.",
    ),
    output(
        "--tests",
        type=click.IntRange(0),
        metavar="N",
        help="Number of evaluations, evenly spaced, on the images of --validate or else the test images; the weights "
        "of the best are DIR/model_best.pt.  [default: 10 with --validate]",
    ),
    output("--tensorboard", is_flag=True, help="Write DIR/tensorboard as well."),
)


@dataclass(frozen=True)
class Keeping:
    """The options for the folder of a run."""

    checkpoint_every: int | None = None
    report: bool = True
    shadow: bool = False
    tests: int | None = None
    tensorboard: bool = False

    def refuse_impossible(self, *, folder: bool, held_out: bool) -> None:
        """Refuse outputs that need a folder or a package that is missing.

        Raises:
            click.UsageError: naming it.
        """
        if not folder and (self.tensorboard or self.checkpoint_every):
            raise click.UsageError("checkpoints and TensorBoard need a folder: -o DIR")
        if not folder and (self.tests or held_out):
            raise click.UsageError("the weights of the best evaluation need a folder: -o DIR")
        if self.tensorboard:
            try:
                import torch.utils.tensorboard  # noqa: F401
            except ImportError as error:
                raise click.UsageError(
                    "--tensorboard needs the package tensorboard: pip install tensorboard"
                ) from error

    def evaluations(self, recipe: Recipe, session: Session | None) -> int:
        """How often a run is validated; a resumed one as often as before, unless the command line says otherwise."""
        if self.tests is not None:
            return self.tests
        if session is not None:
            return session.evaluations
        return EVALUATIONS if recipe.held_out else 0

    @contextmanager
    def listeners(self, folder: Path | None, iteration: int) -> Iterator[list[Callable[[Progress], None]]]:
        """The listeners of each report; an earlier process may have reported iterations after this one."""
        if folder is None or not self.tensorboard:
            yield []
            return
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=iteration + 1)

        def write(progress: Progress) -> None:
            for name in SERIES:
                value = getattr(progress, name)
                if value is not None:
                    writer.add_scalar(name, value, progress.iteration)

        try:
            yield [write]
        finally:
            writer.close()

    def write_report(self, folder: Path, run: TrainingRun, accuracy: Accuracy) -> Path | None:
        """Analyse the network's features, and write the report of a finished run.

        Raises:
            SlimnetError: it cannot be written.
        """
        if not self.report:
            return None
        from slimnet.errors import TraceError
        from slimnet.report import write_training_report
        from slimnet.training.analysis.universality import analyse
        from slimnet.training.run.run_folder import REPORT, read_history

        images = len(run.data.x_train)
        with terminal.progress("Analysing", images) as advance:
            try:
                found = analyse(run.dense_model(), run.data, progress=lambda done, of: advance(images * done // of, ""))
            except TraceError:
                # The report of a network whose features cannot be traced has no analysis.
                found = None
        with terminal.working("Drawing the report"):
            return write_training_report(read_history(folder), run.recipe, found, folder / REPORT, accuracy=accuracy)


keeping_options = as_one("keeping", Keeping, OPTIONS)
"""Add the options; the command gets them as one `keeping`."""
