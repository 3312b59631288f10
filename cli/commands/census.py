"""slimnet census: how much of many checkpoints is dead weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.groups import GroupedCommand
from slimnet_cli.options.network import Network, Shape, noise, usual_shape
from slimnet_cli.options.paths import existing, page_option
from slimnet_cli.options.shared import THRESHOLD, json_option, network_options, threshold_option
from slimnet_cli.options.sources import Source, find_source
from slimnet_cli.output import terminal
from slimnet_cli.output.next_step import show_next

if TYPE_CHECKING:
    from rich.table import Table

    from slimnet.census import CensusRow

EXAMPLES = """\b
Examples:
  slimnet census ~/.cache/torch/hub/checkpoints
  slimnet census resnet18-f37072fd.pth runs/digits -o census.html
  slimnet census epochs/ --arch resnet56 --json
"""


def existing_all(context: click.Context, parameter: click.Parameter, paths: Sequence[Path]) -> Sequence[Path]:
    """Refuse paths at which there is nothing."""
    for path in paths:
        existing(context, parameter, path)
    return paths


@click.command(cls=GroupedCommand, epilog=EXAMPLES, short_help="Count the dead channels of many checkpoints.")
@click.argument(
    "places",
    metavar="FOLDER|CKPT|RUN|BUNDLE...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    callback=existing_all,
)
@network_options(required=False, references=True)
@threshold_option
@page_option("-o", "--out", what="Write an HTML page as well")
@json_option
def census(places: Sequence[Path], network: Network, threshold: float, out: Path | None, as_json: bool) -> None:
    """Count the dead channels of many checkpoints, and what exact slimming would remove from each.

    All checkpoints, runs and bundles in a FOLDER and its subfolders are counted. The architecture of a checkpoint is
    --arch, or the built-in, torchvision or timm architecture after which its file or folder is named
    (resnet18-f37072fd.pth). In other checkpoints only the dead channels are counted, found by the names of the tensors.
    No checkpoint is changed.
    """
    from slimnet.census import find_checkpoints
    from slimnet.errors import UsageError

    paths = list(dict.fromkeys(path for place in places for path in find_checkpoints(place)))
    if not paths:
        raise UsageError(f"there is no checkpoint in {', '.join(map(str, places))}; name a folder with some")
    rows = []
    sources: dict[str, Source] = {}
    with terminal.progress("Checkpoints", len(paths)) as advance:
        for number, path in enumerate(paths):
            advance(number, str(path))
            rows.append(count_one(path, network, threshold, sources))
    if not any(row.channels or row.macs for row in rows):
        raise UsageError(f"none of {len(rows)} files has a BatchNorm; {rows[0].name}: {rows[0].note}")
    if out is not None:
        from slimnet.report.census.page import write_census

        write_census(rows, threshold, out)
    if as_json:
        terminal.emit({"threshold": threshold, "checkpoints": [dataclasses.asdict(row) for row in rows]})
        return
    show(rows, threshold)
    if out is not None:
        terminal.result().print(f"\npage written to {out}", soft_wrap=True)
    show_next_of(rows, sources, threshold)


def count_one(path: Path, network: Network, threshold: float, sources: dict[str, Source]) -> CensusRow:
    """The row of one path; what cannot be read or traced says so in its note. Its network is added to `sources`."""
    from slimnet.census import CensusRow, count_scales, take_census
    from slimnet.checkpoint import read_state_dict
    from slimnet.errors import SlimnetError

    name = str(path)
    problem = "its network is not known: name it with --arch"
    try:
        source = known_source(path, network)
        if source is not None:
            model = source.load()
            sources[name] = source
            shape = shape_to_assume(source, model)
            inputs = source.example(model, None) if shape is None else noise(shape).to(network.device)
            row = take_census(name, model, inputs, threshold, arch=source.network.arch or "")
            return dataclasses.replace(row, assumed_shape=shape)
    except (SlimnetError, click.UsageError) as error:
        problem = error.format_message() if isinstance(error, click.UsageError) else str(error)
    try:
        channels, dead = count_scales(read_state_dict(path), threshold)
    except (SlimnetError, IsADirectoryError) as error:
        return CensusRow(name, note=str(error))
    return CensusRow(name, channels=channels, dead=dead, note=problem if channels else "it has no BatchNorm")


def known_source(path: Path, network: Network) -> Source | None:
    """What a path names; for a checkpoint of a network that nobody named, the one that its own name says, if any."""
    from slimnet.census import names_in
    from slimnet.models.architecture import known_as
    from slimnet.storage.folder_names import is_bundle, is_run

    if is_bundle(path) or is_run(path):
        return find_source(str(path), Network(None, device=network.device, trust=network.trust))
    arch = network.arch or known_as(names_in(path))
    return None if arch is None else Source(path, path, dataclasses.replace(network, arch=arch))


def shape_to_assume(source: Source, model: Any) -> Shape | None:
    """The usual shape of a network's inputs; None where another one is known, or where nothing is usual."""
    from slimnet.models.untrusted import imports_code

    network = source.network
    is_known = source.blueprint is not None or source.images is not None or network.input_shape is not None
    if is_known or imports_code(network.arch or ""):
        return None
    return usual_shape(network.arch or "", network.arch_args, model)


def show(rows: Sequence[CensusRow], threshold: float) -> None:
    """The table of those with BatchNorm, why others are missing or were not traced, and the totals."""
    from slimnet.report.census.text import in_words

    console = terminal.result()
    console.print(table([row for row in rows if row.channels]))
    for row in rows:
        if row.note:
            terminal.note(row.note if row.name in row.note else f"{row.name}: {row.note}")
    if any(row.assumed_shape for row in rows):
        terminal.note("the inputs of some networks are assumed, as is usual for them; --input-shape changes that")
    console.print("\n" + in_words(rows, threshold), soft_wrap=True)


def show_next_of(rows: Sequence[CensusRow], sources: Mapping[str, Source], threshold: float) -> None:
    """The command that slims the checkpoint with the most removable channels; nothing if none has any."""
    slimmable = max((row for row in rows if row.removable), key=lambda row: row.removable or 0, default=None)
    if slimmable is not None:
        how = [] if threshold == THRESHOLD else ["--threshold", f"{threshold:g}"]
        show_next("slim", *sources[slimmable.name].arguments, *how, "-o", "slim/")


def table(rows: Sequence[CensusRow]) -> Table:
    """One line a checkpoint."""
    from slimnet.report.census.text import cells

    headings = ("checkpoint", "network", "γ", "dead", "share", "removable", "MACs removed", "parameters removed")
    lines = [(*line[:6], line[7], line[9]) for line in map(cells, rows)]
    return terminal.table(headings, lines, right=(2, 3, 4, 5, 6, 7))
