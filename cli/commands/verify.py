"""slimnet verify: check a bundle on this machine."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.data import Labelled, data_options
from slimnet_cli.options.machine import on_device
from slimnet_cli.options.network import Network
from slimnet_cli.options.paths import existing, existing_bundle
from slimnet_cli.options.shared import architecture_option, json_option
from slimnet_cli.output import terminal
from slimnet_cli.output.next_step import show_next
from slimnet_cli.output.phases import Phase, progress_of
from slimnet_cli.output.slimming_phases import FOR_EACH_IMAGE

if TYPE_CHECKING:
    from slimnet import Certificate, Verification

EXAMPLES = """\b
Examples:
  slimnet verify slim/
  slimnet verify slim/ --dense net.pt --data digits
  slimnet verify slim/ --json
"""


@click.command(epilog=EXAMPLES, short_help="Check a bundle again on this machine.")
@click.argument("bundle", metavar="BUNDLE", callback=existing_bundle)
@click.option(
    "--dense",
    metavar="CKPT",
    callback=existing,
    help="The checkpoint it was made from: the certificate is measured again.",
)
@data_options
@functools.partial(architecture_option, references=True)
@on_device
@json_option
def verify(bundle: str, dense: str | None, data: Labelled, network: Network, as_json: bool) -> None:
    """Check that a bundle is complete, and that all its forms compute the same outputs.

    The hash of every file is checked, and the weights, the exported program and the ONNX model are run on
    the same inputs. With --dense the slim network is compared with the dense one again, on the test images of --data
    or on random inputs. What a training with --shrink set to zero is checked against plan and weights.
    Exits with 1 if anything differs. A bundle whose network was trained after its certificate
    was measured is complete, but not certified: this is reported, and "certified" is false with --json.
    """
    from slimnet.bundle.bundle import COMPARING, MEASURING, READING, read_blueprint, verify_bundle
    from slimnet.data import Batches

    if data.source is not None and dense is None:
        raise click.UsageError("--data is for the comparison with the dense network; give its checkpoint with --dense")
    # Reading it hashes every file of the bundle, as `verify_bundle` does again.
    blueprint = None if dense is None else read_blueprint(bundle)
    images = (data if blueprint is None else data.trained_on(blueprint.images)).load()
    again = [Phase(MEASURING, weight=1.0 + FOR_EACH_IMAGE * (len(images.x_test) if images else 0))]
    phases = [Phase(READING), Phase(COMPARING, weight=3.0), *(again if dense is not None else [])]
    with progress_of("Verifying", phases) as progress:
        trained = None
        if dense is not None and blueprint is not None:
            trained = network.or_else(blueprint.architecture).load(dense)
        loader = Batches(images, progress=progress.counting(MEASURING)) if images else None
        fresh = network.fresh()
        result = verify_bundle(bundle, fresh, dense=trained, loader=loader, trust=network.trust, progress=progress.step)
    if as_json:
        terminal.emit(document(result))
    else:
        terminal.result().print(str(result), soft_wrap=True)
        show_next("export", bundle, "-o", f"{Path(bundle).resolve().name}.onnx")


def document(result: Verification) -> dict[str, Any]:
    """A verification as JSON."""

    def proof(certificate: Certificate | None) -> dict[str, Any] | None:
        return None if certificate is None else dataclasses.asdict(certificate) | {"holds": certificate.holds}

    both = {"certificate": proof(result.certificate), "measured": proof(result.measured)}
    return dataclasses.asdict(result) | both | {"certified": result.certified}
