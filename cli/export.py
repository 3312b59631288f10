"""slimnet export: an ONNX model from a bundle."""

from __future__ import annotations

import click
from slimnet_cli.options import json_option

EXAMPLES = """\b
Examples:
  slimnet export slim/ -o net.onnx
  slimnet export slim/ -o net.onnx --json
"""


@click.command(epilog=EXAMPLES, short_help="Write a bundle as an ONNX model.")
@click.argument("bundle", metavar="BUNDLE")
@click.option("-o", "--out", required=True, metavar="F.onnx", help="Where the ONNX model goes.")
@json_option
def export(bundle: str, out: str, as_json: bool) -> None:
    """Write the slim network of a bundle as an ONNX model.

    One self-contained file with BatchNorm folded and any batch size, checked against the network under onnxruntime.
    """
