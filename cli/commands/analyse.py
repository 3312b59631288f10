"""slimnet analyse: the sparsity of a network, and the universality of its features."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.data import NORMALISE, Labelled, Reading, reading_options
from slimnet_cli.options.machine import Machine
from slimnet_cli.options.network import Network
from slimnet_cli.options.paths import existing_images, existing_source, page_option
from slimnet_cli.options.shared import architecture_option, json_option
from slimnet_cli.options.sources import find_source
from slimnet_cli.output import terminal
from slimnet_cli.output.next_step import show_next

if TYPE_CHECKING:
    from torch import nn

    from slimnet.data import ImageData
    from slimnet.training.analysis.universality import Analysis, LayerAnalysis

EXAMPLES = """\b
Examples:
  slimnet analyse runs/digits
  slimnet analyse runs/digits --report digits.html
  slimnet analyse net.pt --arch basicnet --arch-args '{"in_channels": 1}' --data digits --json
"""

EIGHTHS = "▁▂▃▄▅▆▇█"
BINS = 10
NOTHING = "–"


@dataclass(frozen=True)
class Subject:
    """The subject of an analysis: a network, its data, and the folder of its run, if any.

    The data has a name, the size of its images and a normalisation. `arguments` name the network for other commands.
    """

    model: nn.Module
    source: str
    image_size: int | None = None
    run: Path | None = None
    normalise: str = "data"
    arguments: Sequence[str] = ()


@click.command(epilog=EXAMPLES, short_help="Measure sparsity and universality on the training images.")
@click.argument("subject", metavar="CKPT|RUN|BUNDLE", callback=existing_source)
@functools.partial(architecture_option, references=True)
@click.option(
    "--data",
    metavar="DATA",
    callback=existing_images,
    help="Labelled images, as for 'train'.  [default: those of the run]",
)
@click.option("--image-size", type=click.IntRange(1), metavar="PIXELS", help="Resize the images of a folder to this.")
@NORMALISE
@click.option("--device", metavar="DEVICE", help="cpu, cuda or cuda:N.  [default: a GPU where there is one]")
@reading_options
@page_option("--report", what="Write the run's HTML report with these results in it")
@json_option
def analyse(
    subject: str,
    network: Network,
    data: str | None,
    image_size: int | None,
    normalise: str | None,
    device: str | None,
    reading: Reading,
    report: Path | None,
    as_json: bool,
) -> None:
    """Measure each layer's sparsity, by γ and by activation, and the universality of its features.

    RUN is the folder of a training run, which stores its architecture and its data; CKPT is a checkpoint, which needs
    --arch and --data. The training images are used without augmentation.

    A feature is dead by γ where its BatchNorm has |γ| < 1e-3, and dead by activation where no training image
    activates it by more than 1e-12. Its universality is the share of the training images whose response exceeds a
    thousandth of its largest; a layer's is the mean over the features that respond at all, and the bars at the
    end of its row are a histogram over these features.
    """
    from slimnet.data.normalisation import normalised

    asked = Labelled(data, image_size, reading, normalise)
    chosen = Machine(device=device).chosen_device()
    with terminal.working("Reading the network"):
        known = _subject(subject, network, data)
        if report is not None and known.run is None:
            raise click.UsageError("only a run has a report; name a run's folder, or leave --report out")
    normalise = normalise or known.normalise
    images = normalised(reading.load(known.source, image_size or known.image_size), normalise)
    known.model.to(chosen)
    found = _measure(known, images)
    if report is not None:
        assert known.run is not None
        _write_report(known, images, found, report)
    if as_json:
        terminal.emit(document(found))
    else:
        _show(found)
        show_next("slim", *known.arguments, *asked.arguments, "-o", "slim/")


def _subject(path: str, network: Network, data: str | None) -> Subject:
    """The network in a run's folder, a bundle or a checkpoint.

    Raises:
        click.UsageError: the network or the data is not given, or given twice.
    """
    source = find_source(path, network)
    if source.recipe is None:
        if data is None:
            raise click.UsageError(f"{path} is a checkpoint; give the training images with --data")
        known = source.blueprint and source.blueprint.images
        normalise = known.normalisation if known else "data"
        return Subject(source.load(), data, normalise=normalise, arguments=source.arguments)
    recipe = source.recipe
    own = data in (None, recipe.data)
    size = recipe.image_size if own else None
    normalise = "data" if own or source.stored_images is None else source.stored_images.normalisation
    return Subject(source.load(), data or recipe.data, size, source.path, normalise, arguments=source.arguments)


def _measure(subject: Subject, images: ImageData) -> Analysis:
    from slimnet.training.analysis.universality import analyse as measure

    total = len(images.x_train)
    with terminal.progress("Analysing images", total) as advance:
        return measure(subject.model, images, progress=lambda done, of: advance(total * done // of, ""))


def _write_report(subject: Subject, images: ImageData, found: Analysis, path: Path) -> None:
    from slimnet.report import write_training_report
    from slimnet.training import evaluate
    from slimnet.training.run.run_folder import read_history

    assert subject.run is not None
    with terminal.working("Drawing the report"):
        history = read_history(subject.run)
        write_training_report(history, history.recipe, found, path, accuracy=evaluate(subject.model, images))
    terminal.note(f"report written to {path}")


def document(found: Analysis) -> dict[str, Any]:
    """The analysis as JSON: the numbers of every feature, and their summaries."""
    layers: list[Mapping[str, Any]] = [
        dataclasses.asdict(layer)
        | {
            "dead_by_gamma": layer.dead_by_gamma,
            "dead_by_activation": layer.dead_by_activation,
            "universality": layer.universality,
        }
        for layer in found.layers
    ]
    return {
        "data": found.data,
        "images": found.images,
        "sparsity_by_gamma": found.sparsity_by_gamma,
        "sparsity_by_activation": found.sparsity_by_activation,
        "layers": layers,
    }


def _show(found: Analysis) -> None:
    console = terminal.result()
    if not found.layers:
        console.print("The network has no convolution features.")
        return
    headings = ("layer", "features", "dead by γ", "by activation", "universality", f"{'0':{BINS - 5}}100 %")
    rows = [_row(layer) for layer in found.layers]
    features = sum(layer.features for layer in found.layers)
    totals = [_percent(each) for each in (found.sparsity_by_gamma, found.sparsity_by_activation)]
    rows.append(("together", f"{features:,}", *totals, "", ""))
    console.print(terminal.table(headings, rows, right=(1, 2, 3, 4)))
    console.print(f"\nmeasured on {found.images:,} training images of {found.data}", style="dim")


def _row(layer: LayerAnalysis) -> tuple[str, ...]:
    return (
        layer.layer,
        f"{layer.features:,}",
        _dead(layer.dead_by_gamma, layer.features),
        _dead(layer.dead_by_activation, layer.features),
        _percent(layer.universality),
        sparks(layer.universalities or ()),
    )


def _dead(count: int | None, features: int) -> str:
    return NOTHING if count is None else f"{count:,}  {_percent(count / features):>5}"


def _percent(share: float | None) -> str:
    from slimnet.report.formatting import percent

    return NOTHING if share is None else percent(share)


def sparks(shares: tuple[float, ...]) -> str:
    """A histogram of the features' universality, one bar for each tenth; features without one are omitted."""
    counts = Counter(min(BINS - 1, int(BINS * share)) for share in shares if share > 0)
    most = max(counts.values(), default=1)
    bars = [EIGHTHS[-(-8 * counts[tenth] // most) - 1] if counts[tenth] else " " for tenth in range(BINS)]
    return "".join(bars) if counts else ""
