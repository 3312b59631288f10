"""slimnet checks: installed versions, and features that work on this machine."""

from __future__ import annotations

from dataclasses import dataclass

import click
from rich.text import Text
from slimnet_cli.options.shared import json_option
from slimnet_cli.output import terminal
from slimnet_cli.output.next_step import show_next

EXAMPLES = """\b
Examples:
  slimnet checks
  slimnet checks --json
"""


@dataclass(frozen=True)
class Check:
    """One check: its name, whether it works here, and details."""

    name: str
    works: bool
    detail: str


@click.command(epilog=EXAMPLES, short_help="Show versions, devices and working features.")
@json_option
def checks(as_json: bool) -> None:
    """Show versions, devices, and the features that work on this machine."""
    from slimnet.benchmark import environment

    with terminal.working("Checking"):
        where = environment().rows()
        found = [_torchvision(), _timm(), *_runtimes(), _cuda()]
    if as_json:
        terminal.emit(
            {
                "environment": dict(where),
                "checks": {check.name: {"works": check.works, "detail": check.detail} for check in found},
            }
        )
        return
    console = terminal.result()
    console.print(terminal.table(("", ""), where))
    console.print()
    marks = {True: Text("works", style="green"), False: Text("no", style="yellow")}
    console.print(terminal.table(("", "", ""), [(each.name, marks[each.works], each.detail) for each in found]))
    show_next("demo")


def _torchvision() -> Check:
    import torch

    from slimnet import compat
    from slimnet.errors import SlimnetError

    try:
        package = compat.torchvision()
    except SlimnetError as error:
        return Check("torchvision", False, str(error))
    try:
        package.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (RuntimeError, ImportError):
        return Check("torchvision", True, f"{package.__version__}; networks only, its compiled operators do not load")
    return Check("torchvision", True, f"{package.__version__}, with its compiled operators")


def _timm() -> Check:
    from slimnet import compat
    from slimnet.errors import SlimnetError

    try:
        return Check("timm", True, compat.timm().__version__)
    except SlimnetError as error:
        return Check("timm", False, str(error))


def _runtimes() -> list[Check]:
    """The checks of the runtimes on the CPU, without torch, which is required, and without variants."""
    from slimnet.benchmark.runtimes.table import RUNTIMES

    asked = [(each, each.obstacle("cpu")) for each in RUNTIMES[1:] if not each.is_variant]
    return [Check(each.name, obstacle is None, obstacle or each.details()) for each, obstacle in asked]


def _cuda() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("CUDA", False, "no device; networks run on the CPU")
    devices = (torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    return Check("CUDA", True, ", ".join(devices))
