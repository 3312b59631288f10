"""slimnet slim: from a checkpoint to a bundle with its certificate."""

from __future__ import annotations

import json
from pathlib import Path

import click
from slimnet_cli import before_after, terminal
from slimnet_cli.network import Network
from slimnet_cli.options import json_option, network_options
from slimnet_cli.reading import Labelled, data_options
from slimnet_cli.removing import Removing, removing_options

EXAMPLES = """\b
Examples:
  slimnet slim resnet56.th --arch resnet56 -o slim/
  slimnet slim resnet56.th --arch resnet56 --dry-run
  slimnet slim net.pt --arch basicnet --arch-args '{"in_channels": 1}' --data digits -o slim/
"""


@click.command(epilog=EXAMPLES, short_help="Remove the dead channels of a network.")
@click.argument("checkpoint", metavar="CKPT")
@network_options()
@click.option("-o", "--out", metavar="DIR", help="The folder to write the bundle to; it must not exist yet.")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@removing_options
@data_options
@json_option
def slim(
    checkpoint: str,
    network: Network,
    out: str | None,
    dry_run: bool,
    removing: Removing,
    data: Labelled,
    as_json: bool,
) -> None:
    """Remove the dead channels of a trained network, and prove that nothing else changed.

    CKPT is a checkpoint (.pt, .pth, .th, .safetensors). Writes a bundle: the slim weights, an ONNX model,
    the plan and the certificate. With --data the certificate is measured on the test images and their
    accuracy is shown; without, on random inputs.
    """
    if dry_run:
        _show_plan(checkpoint, network, removing, as_json)
    elif out is None:
        raise click.UsageError("say where the bundle goes with -o DIR, or print the plan alone with --dry-run")
    else:
        _write_bundle(checkpoint, network, removing, data, out, as_json)


def _show_plan(checkpoint: str, network: Network, removing: Removing, as_json: bool) -> None:
    import slimnet

    with terminal.working("Planning"):
        model = network.load(checkpoint)
        plan = slimnet.inspect(model, network.example(model), removing.threshold, round_to=removing.round_to).plan
    if as_json:
        terminal.emit(json.loads(plan.to_json()))
    else:
        terminal.result().print(str(plan), soft_wrap=True)


def _write_bundle(
    checkpoint: str, network: Network, removing: Removing, data: Labelled, out: str, as_json: bool
) -> None:
    import slimnet
    from slimnet.bundle import check_free, save
    from slimnet.training import evaluate

    check_free(Path(out))
    images = data.load()
    with terminal.working("Slimming"):
        dense = network.load(checkpoint)
        slimmed = slimnet.slim(
            dense,
            network.example(dense, images),
            removing.threshold,
            round_to=removing.round_to,
            loader=list(images.batches("test")) if images else None,
            tolerance=removing.tolerance,
        )
        accuracies = (evaluate(dense, images), evaluate(slimmed.model, images)) if images else None
        folder = save(slimmed, out, source=Path(checkpoint).name)
    if as_json:
        terminal.emit(before_after.document(slimmed, accuracies) | {"bundle": str(folder)})
        return
    terminal.result().print(before_after.table(slimmed, accuracies))
    terminal.result().print(f"\n{slimmed.certificate}\n\nwritten to {folder}", soft_wrap=True)
