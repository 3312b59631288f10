"""The page of a training run: its text and figures in the template."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slimnet.report.drawing.svg import Drawing
from slimnet.report.network.figures import silhouette
from slimnet.report.rendering import fill, marked, write_page
from slimnet.report.training import figures as figures
from slimnet.report.training.numbers import layers_in_numbers
from slimnet.report.training.record import TrainingRecord
from slimnet.report.training.text import headline, recipe_rows, sentences, tiles, title
from slimnet.training import Accuracy, Recipe
from slimnet.training.analysis.universality import Analysis
from slimnet.version import installed_version

if TYPE_CHECKING:
    from slimnet.training.run.run_folder import RunHistory


def write_training_report(
    history: "RunHistory",
    recipe: Recipe,
    analysis: Analysis | None,
    path: Path,
    *,
    accuracy: Accuracy | None = None,
) -> Path | None:
    """Write the report of a run as one self-contained HTML file, atomically.

    `history` is the result of `slimnet.training.run.run_folder.read_history` for a run, finished or not; `analysis` and
    `accuracy` are those of the current network, omitted if None. Returns `path`, or None if the run has not reported
    yet, so that there is nothing to write.

    Raises:
        SlimnetError: it cannot be written there.
    """
    if not history.progress:
        return None
    record = replace(TrainingRecord.of(history, analysis, accuracy), recipe=recipe)
    return write_page(render_training(record), Path(path))


def render_training(record: TrainingRecord) -> str:
    """The report as HTML text; all names are escaped."""
    return fill(
        "training.html.jinja",
        record=record,
        title=title(record),
        version=installed_version("slimnet"),
        headline=headline(record),
        sentences=sentences(record),
        tiles=tiles(record),
        recipe=recipe_rows(record),
        shown=figures.MOST_PANELS,
        drawings=drawings(record),
    )


def drawings(record: TrainingRecord) -> dict[str, Drawing]:
    """The figures for which this record has values, by name, each wide and narrow."""
    found = {}
    if record.alive:
        found["silhouette"] = silhouette(list(record.alive.values()), layers_in_numbers(record))
        if any(alive < size for size, alive in record.alive.values()):
            found["layers"] = figures.layer_sparsity(record)
    if len(record.progress) > 1:
        found["progress"] = figures.progress(record)
    if len(record.kept_at) > 1 and record.layers:
        found["deaths"] = figures.deaths(record)
        found["gammas"] = figures.gamma_history(record)
        if set(record.layers) & set(record.betas):
            found["betas"] = figures.beta_history(record)
    if record.analysis is not None and any(layer.universalities for layer in record.analysis.layers):
        found["universality"] = figures.universality(record.analysis.layers)
    return marked(found)
