"""slimnet ladder: several compact networks out of one training."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text
from slimnet_cli.options.budget import METHOD, ranked
from slimnet_cli.options.data import Labelled, data_options
from slimnet_cli.options.groups import GroupedCommand, in_group
from slimnet_cli.options.machine import on_device
from slimnet_cli.options.names import METHODS, one_of
from slimnet_cli.options.network import Network
from slimnet_cli.options.paths import FORCE, existing_source, work_folder
from slimnet_cli.options.recipe import numbers
from slimnet_cli.options.removal import chosen_widths, round_option
from slimnet_cli.options.shared import json_option, network_options
from slimnet_cli.options.sources import bundle_arguments, find_source
from slimnet_cli.output import terminal
from slimnet_cli.output.destinations import put_in_place, working_folder
from slimnet_cli.output.next_step import show_next

if TYPE_CHECKING:
    from rich.table import Table

    from slimnet.methods import Ranking
    from slimnet.methods.iterative_pruning import Rung

EXAMPLES = """\b
Examples:
  slimnet ladder net.pt --arch resnet56 --data cifar10 -o ladder/
  slimnet ladder net.pt --arch resnet56 --data cifar10 --steps 0.8,0.6 --unit params -o ladder/
"""
STEPS = "0.9,0.75,0.5,0.25"
THRESHOLD = 1e-3

rungs = in_group("Rungs")


@click.command(cls=GroupedCommand, epilog=EXAMPLES, short_help="Make several smaller networks from one.")
@click.argument("checkpoint", metavar="CKPT|RUN|BUNDLE", callback=existing_source)
@network_options(required=False, references=True)
@on_device
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    callback=work_folder("ladder"),
    help="The folder for the bundles; the same command resumes there.",
)
@FORCE
@rungs(
    "--steps",
    default=STEPS,
    show_default=True,
    callback=numbers(float),
    metavar="F,...",
    help="Fractions of --unit to keep.",
)
@rungs(
    "--unit",
    type=click.Choice(["macs", "params", "channels"]),
    default="macs",
    show_default=True,
    help="What the steps are fractions of.",
)
@rungs(
    "--method",
    callback=one_of("method", METHODS),
    default=METHOD,
    show_default=True,
    help="How channels are ranked: implicit, li2017, liu2017, ...",
)
@round_option("Rungs", whole_networks=False)
@data_options
@json_option
def ladder(
    checkpoint: str,
    network: Network,
    out: Path,
    force: bool,
    steps: tuple[float, ...],
    unit: Any,
    method: str,
    round_to: int | str | None,
    data: Labelled,
    as_json: bool,
) -> None:
    """Make several smaller networks from one trained network, each a bundle with its certificate.

    CKPT is a checkpoint, which needs --arch; the folder of a RUN and a BUNDLE store their architecture.

    The first network (rung) removes dead channels only and is exact. The next ones also remove live channels, until the
    given fractions of the MACs remain: with --data the table, DIR/ladder.json and DIR/ladder.html give the accuracy
    before any fine-tuning, and which rungs are Pareto-optimal. Removable channels are kept if their removal saves no
    time under onnxruntime, unless --round says otherwise. After Ctrl-C or a crash the same command resumes.
    """
    from slimnet.methods import Budget
    from slimnet.methods.batchnorm_measure import ENOUGH
    from slimnet.methods.iterative_pruning import PAGE, Ladder
    from slimnet.methods.scores import require_method
    from slimnet.report.methods.iterative_page import write_ladder
    from slimnet.storage.files import sha256_of
    from slimnet.storage.written_folders import LADDER

    for step in steps:
        Budget(unit, step)
    source = find_source(checkpoint, network)
    network, data = source.network, source.labelled(data)
    images = data.load()
    require_method(method, with_batches=images is not None)
    found: list[Rung] = []
    work = working_folder(out, force=force)
    with terminal.progress("Rungs", len(set(steps)) + 2) as advance:
        model = source.load()
        example = source.example(model, images)

        def ranking() -> Ranking:
            return ranked(method, model, example, images, unit, THRESHOLD)

        conditions = {
            "checkpoint": sha256_of(source.weights),
            "arch": network.arch,
            "arch_args": dict(network.arch_args),
            "data": None if images is None else data.source,
            "normalise": data.normalise,
            "method": method,
            "recalibrate": True,
            "measured_on": ENOUGH if images is not None else 0,
            "refit": images is not None,
            "round": round_to,
        }

        def watch(name: str, images_done: int, of: int) -> None:
            advance(len(found), f"{name}: {images_done:,} of {of:,} images")

        widths = chosen_widths(round_to, lambda words: advance(len(found), words))
        whole = Ladder(work, model, example, images, conditions, source.path.name, watch, widths)
        for rung in whole.climb(steps, unit, THRESHOLD, ranking):
            found.append(rung)
            advance(len(found), rung.name)
    # The dense network's MACs are known only after a plan was made.
    found[0] = whole.begun()["dense"]
    write_ladder(f"The ladder of {source.path.name}", found, work / PAGE)
    put_in_place(work, out, LADDER)
    if as_json:
        terminal.emit({"folder": str(out), "report": str(out / PAGE), "rungs": document(found)})
    else:
        _show(found, out, replace(data, optional=False))


def _show(found: list[Rung], out: Path, data: Labelled) -> None:
    """Print the rungs, their notes and the next command; `data` are the images that they were measured on."""
    from slimnet.methods.iterative_pruning import PAGE

    console = terminal.result()
    console.print(table(found))
    for rung in found:
        if rung.note:
            terminal.note(f"{rung.name}: {rung.note}")
    console.print(f"\nbundles and {PAGE} written to {out}", soft_wrap=True)
    smaller = [rung for rung in found if not rung.note and not rung.exact]
    if smaller and data.source is not None:
        show_next("finetune", *bundle_arguments(out / smaller[0].name), *data.arguments, "-o", "tuned/")
    else:
        show_next("export", *bundle_arguments(out / "exact"), "-o", "exact.onnx")


def document(found: list[Rung]) -> list[dict[str, Any]]:
    """The rungs as JSON."""
    from slimnet.methods.iterative_pruning import front

    best = front(found)
    return [asdict(rung) | {"exact": rung.exact, "pareto": rung.name in best} for rung in found]


def table(found: list[Rung]) -> Table:
    """The rungs as a table; Pareto-optimal ones are bold."""
    from slimnet.methods.iterative_pruning import front
    from slimnet.report.methods.iterative_page import row

    best = front(found)
    rows = [row(rung, found[0], best) for rung in found if not rung.note]
    names = ("params", "macs", "left", "accuracy", "certificate")
    cells = [
        [Text(each["name"], style="bold" if each["best"] else ""), *(each[name] for name in names)] for each in rows
    ]
    headings = ("", "parameters", "MACs", "left", "accuracy", "largest relative difference")
    return terminal.table(headings, cells, right=(1, 2, 3, 4))
