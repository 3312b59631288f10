"""slimnet export: an ONNX model from a bundle."""

from __future__ import annotations

import dataclasses
import functools

import click
from slimnet_cli.options.network import Network
from slimnet_cli.options.paths import existing_bundle
from slimnet_cli.options.shared import architecture_option, json_option
from slimnet_cli.output import terminal
from slimnet_cli.output.destinations import refuse_missing_folder

EXAMPLES = """\b
Examples:
  slimnet export slim/ -o net.onnx
  slimnet export slim/ -o net.onnx --opset 18 --json
"""


@click.command(epilog=EXAMPLES, short_help="Write a bundle as an ONNX model.")
@click.argument("bundle", metavar="BUNDLE", callback=existing_bundle)
@click.option("-o", "--out", required=True, metavar="F.onnx", help="The ONNX file; replaced if it exists.")
@click.option("--opset", type=int, help="The ONNX operator set.  [default: what torch writes by itself]")
@functools.partial(architecture_option, checkpoints=False, references=True)
@json_option
def export(bundle: str, out: str, opset: int | None, network: Network, as_json: bool) -> None:
    """Write the slim network of a bundle as an ONNX model.

    One self-contained file with BatchNorm folded and any batch size, checked against the network under onnxruntime.
    --arch is only needed if the bundle does not name it, or if it is your own code (package.module:factory).
    """
    from slimnet.bundle.bundle import load, read_blueprint
    from slimnet.bundle.input_spec import random_inputs
    from slimnet.export.onnx import export_onnx

    refuse_missing_folder(out)
    with terminal.working("Exporting"):
        blueprint = read_blueprint(bundle)
        model = load(bundle, network.fresh(), trust=network.trust)
        inputs = random_inputs(blueprint.inputs, seed=0)
        result = export_onnx(model, inputs, out, metadata={"plan_digest": blueprint.plan.digest}, opset=opset)
    if as_json:
        terminal.emit(dataclasses.asdict(result))
    else:
        terminal.result().print(str(result), soft_wrap=True)
