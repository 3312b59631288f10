"""slimnet verify: check a bundle again, on this machine."""

from __future__ import annotations

import dataclasses

import click
from slimnet_cli import terminal
from slimnet_cli.options import json_option

EXAMPLES = """\b
Examples:
  slimnet verify slim/
  slimnet verify slim/ --json
"""


@click.command(epilog=EXAMPLES, short_help="Check a bundle again on this machine.")
@click.argument("bundle", metavar="BUNDLE")
@json_option
def verify(bundle: str, as_json: bool) -> None:
    """Check that a bundle is whole, and that all its forms still compute the same.

    Every file is compared with what was written, and the weights, the exported program and the ONNX model are run on
    the same inputs. Leaves with 1 where they differ.
    """
    from slimnet.bundle import verify_bundle

    with terminal.working("Verifying"):
        result = verify_bundle(bundle)
    if as_json:
        terminal.emit(dataclasses.asdict(result))
    else:
        terminal.result().print(str(result), soft_wrap=True)
