"""slimnet export: an ONNX model, an exported program or OpenVINO's files from a bundle."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.export_form import ExportForm, export_form_options
from slimnet_cli.options.network import Network
from slimnet_cli.options.paths import existing_bundle
from slimnet_cli.options.shared import architecture_option, json_option
from slimnet_cli.output import terminal
from slimnet_cli.output.destinations import refuse_missing_folder
from slimnet_cli.output.next_step import say_next

if TYPE_CHECKING:
    from slimnet.export.onnx import OnnxExport
    from slimnet.export.openvino import OpenVinoExport
    from slimnet.export.pt2.export import Pt2Export

EXAMPLES = """\b
Examples:
  slimnet export slim/ -o net.onnx
  slimnet export slim/ -o net.onnx --with-preprocessing --dynamic-size
  slimnet export slim/ -o net.pt2 --with-preprocessing --layout nchw --normalise imagenet
  slimnet export slim/ -o net.xml
  slimnet export slim/ -o net.onnx --opset 18 --json
"""


@click.command(epilog=EXAMPLES, short_help="Write a bundle as an ONNX model.")
@click.argument("bundle", metavar="BUNDLE", callback=existing_bundle)
@click.option("-o", "--out", required=True, metavar="F.onnx|F.pt2|F.xml", help="The file; replaced if it exists.")
@export_form_options
@functools.partial(architecture_option, checkpoints=False, references=True)
@json_option
def export(bundle: str, out: str, form: ExportForm, network: Network, as_json: bool) -> None:
    """Write the slim network of a bundle as an ONNX model, as an exported program for torch (.pt2), or for OpenVINO.

    One self-contained file for any batch size, checked against the network; an ONNX model has BatchNorm folded. For
    OpenVINO these are two: the graph (.xml), and the weights in float32 in a .bin file beside it.
    With --with-preprocessing it takes images as bytes, and was compared with the network after slimnet's own
    preprocessing. With --dynamic-size it takes images of any height and width. The normalisation is that of the bundle,
    or --normalise. --arch is only needed if the bundle does not name it, or if it is your own code
    (package.module:factory).
    """
    form.check(out)
    refuse_missing_folder(out)
    with terminal.working("Exporting"):
        result = _exported(bundle, out, form, network)
    if as_json:
        terminal.emit(dataclasses.asdict(result))
    else:
        terminal.result().print(str(result), soft_wrap=True)
        if Path(out).suffix == ".pt2":
            say_next(f"torch.export.load({out!r}).module() is the network, without slimnet")
        elif Path(out).suffix == ".xml":
            say_next(f"openvino.Core().compile_model({out!r}) is the network, without slimnet")
        else:
            say_next(f"onnxruntime.InferenceSession({out!r}) runs it; docs/onnx.md says what its inputs are")


def _exported(bundle: str, out: str, form: ExportForm, network: Network) -> OnnxExport | Pt2Export | OpenVinoExport:
    from slimnet.bundle.bundle import load, read_blueprint
    from slimnet.bundle.input_spec import random_inputs
    from slimnet.export.onnx import export_onnx
    from slimnet.export.openvino import export_openvino
    from slimnet.export.pt2.export import export_pt2

    blueprint = read_blueprint(bundle)
    inputs = random_inputs(blueprint.inputs, seed=0)
    options: dict[str, Any] = form.options(blueprint.images, inputs.tensors[0])
    model = load(bundle, network.fresh(), trust=network.trust)
    if Path(out).suffix == ".pt2":
        return export_pt2(model, inputs, out, **options)
    metadata = {"plan_digest": blueprint.plan.digest}
    if Path(out).suffix == ".xml":
        return export_openvino(model, inputs, out, metadata=metadata, **options)
    return export_onnx(model, inputs, out, metadata=metadata, opset=form.opset, **options)
