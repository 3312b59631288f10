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
from slimnet_cli.options.paths import existing_bundle_or_file, existing_source, is_int8_file
from slimnet_cli.options.shared import architecture_option, json_option
from slimnet_cli.options.sources import Source, describes_itself, find_source, written_bundle
from slimnet_cli.output import int8_table, terminal
from slimnet_cli.output.next_step import say_next, show_next
from slimnet_cli.output.phases import Phase, progress_of
from slimnet_cli.output.slimming_phases import FOR_EACH_IMAGE

if TYPE_CHECKING:
    from slimnet import Certificate, Verification
    from slimnet.bundle.blueprint import Blueprint

EXAMPLES = """\b
Examples:
  slimnet verify slim/
  slimnet verify slim/ --dense net.pt --data digits
  slimnet verify slim/ --dense runs/digits
  slimnet verify slim/ --json
  slimnet verify net.int8.onnx --data cifar10
  slimnet verify net.int8.xml --data cifar10
"""


RUNS_IT = {
    "onnxruntime": "onnxruntime.InferenceSession({0!r}) runs it; docs/onnx.md says what its inputs are",
    "openvino": "openvino.Core().compile_model({0!r}) runs it; docs/onnx.md says what its inputs are",
}
"""What a file in int8 is run by."""


@click.command(epilog=EXAMPLES, short_help="Check a bundle on this machine.")
@click.argument("bundle", metavar="BUNDLE|F.onnx|F.xml", callback=existing_bundle_or_file)
@click.option(
    "--dense",
    metavar="CKPT|RUN|BUNDLE",
    callback=existing_source,
    help="What the bundle was made from: the certificate is measured again.",
)
@data_options
@functools.partial(architecture_option, references=True)
@on_device
@json_option
def verify(bundle: str, dense: str | None, data: Labelled, network: Network, as_json: bool) -> None:
    """Check that a bundle is complete, and that all its forms compute the same outputs.

    The hash of every file is checked, and the weights, the exported program and the ONNX model are run on the same
    inputs. With --dense the slim network is compared with the dense one again, on the test images of --data or on
    random inputs. For a bundle of train --shrink, the record of the channels that were set to zero is checked against
    plan and weights. The exit code is 1 if anything differs. If the network was trained after its certificate was
    measured, the bundle is complete, but not certified: this is reported, and "certified" is false with --json.

    F.onnx or F.xml is a file of export --int8, with its certificate next to it: its hash is checked, and its accuracy
    is measured again on the test images of --data, under onnxruntime or OpenVINO.
    """
    if is_int8_file(bundle):
        _verify_file(bundle, dense, data, as_json)
        return
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
            trained = _dense_source(dense, network, blueprint).load()
        loader = Batches(images, progress=progress.counting(MEASURING)) if images else None
        fresh = network.fresh()
        result = verify_bundle(bundle, fresh, dense=trained, loader=loader, trust=network.trust, progress=progress.step)
    if as_json:
        terminal.emit(document(result))
    else:
        terminal.result().print(str(result), soft_wrap=True)
        _show_next(Path(bundle), network)


def _dense_source(path: str, network: Network, blueprint: Blueprint) -> Source:
    """The network from which a bundle was made; a checkpoint has the architecture of the bundle unless one is named."""
    return find_source(path, network if describes_itself(path) else network.or_else(blueprint.architecture))


def _show_next(bundle: Path, network: Network) -> None:
    """The command that exports a bundle; where its network cannot be built again, what runs its ONNX model."""
    from slimnet.bundle.manifest import ONNX

    source = written_bundle(bundle, network)
    nameless = source.blueprint is not None and source.blueprint.architecture is None and network.arch is None
    if nameless and (bundle / ONNX).exists():
        say_next(RUNS_IT["onnxruntime"].format(str(bundle / ONNX)))
    else:
        show_next("export", *source.arguments, "-o", f"{bundle.resolve().name}.onnx")


def _verify_file(file: str, dense: str | None, data: Labelled, as_json: bool) -> None:
    """Check a file in int8."""
    if dense is not None:
        raise click.UsageError(
            "--dense is for bundles; the certificate of a file in int8 holds the dense network itself"
        )
    if data.source is None:
        raise click.UsageError("a file in int8 is measured again on test images; name them with --data")
    from slimnet.export.int8.file import stored_certificate
    from slimnet.export.int8.verify import verify_int8

    stored_certificate(Path(file))
    images = data.load()
    assert images is not None, "they were named"
    with terminal.working("Verifying") as say:
        result = verify_int8(file, images, progress=lambda _, __, doing: say(doing))
    if as_json:
        terminal.emit(dataclasses.asdict(result) | {"holds": result.holds})
        return
    terminal.result().print(int8_table.table(result.certificate))
    terminal.result().print("\n" + "\n".join([*int8_table.lines(result.certificate), str(result)]), soft_wrap=True)
    say_next(RUNS_IT[result.certificate.runtime].format(file))


def document(result: Verification) -> dict[str, Any]:
    """A verification as JSON."""

    def proof(certificate: Certificate | None) -> dict[str, Any] | None:
        return None if certificate is None else dataclasses.asdict(certificate) | {"holds": certificate.holds}

    both = {"certificate": proof(result.certificate), "measured": proof(result.measured)}
    return dataclasses.asdict(result) | both | {"certified": result.certified}
