"""The options for the use of the machine; results depend on them by rounding at most."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.groups import in_group
from slimnet_cli.options.network import Network
from slimnet_cli.options.shared import Command, as_one

if TYPE_CHECKING:
    from slimnet.training.recipe.machine_settings import Tuning

machine = in_group("Machine")

OPTIONS = (
    machine("--device", metavar="DEVICE", help="cpu, cuda or cuda:N.  [default: a GPU where there is one]"),
    machine("--threads", type=click.IntRange(1), help="Threads of the CPU; a small network is fastest on one."),
    machine(
        "--compile", "compiled", is_flag=True, help="Generate kernels with torch.compile; takes a minute at first."
    ),
    machine(
        "--cuda-graph/--no-cuda-graph", default=None, help="Replay steps as a CUDA graph.  [default: where possible]"
    ),
    machine("--tf32", is_flag=True, help="Allow TF32 for float32 products on GPUs."),
)


@dataclass(frozen=True)
class Machine:
    """The machine options of a command line; None means the default."""

    device: str | None = None
    threads: int | None = None
    compiled: bool = False
    cuda_graph: bool | None = None
    tf32: bool = False

    def chosen_device(self) -> str:
        """The device, checked to exist.

        Raises:
            click.UsageError: it is not.
        """
        if self.device == "cpu":
            return self.device
        import torch

        from slimnet.errors import UsageError
        from slimnet.torch_state.devices import usable

        if self.device is None:
            return "cuda" if torch.cuda.is_available() else "cpu"
        # Each of several processes initialises its own GPU only.
        local = os.environ.get("LOCAL_RANK") if self.device == "cuda" else None
        try:
            return str(usable(self.device) if local is None else usable(f"cuda:{local}"))
        except UsageError as error:
            raise click.UsageError(f"{error}, or leave --device out") from error

    def tuning(self, threads: int | None) -> Tuning:
        """The machine settings of a run; `threads` is the default number of threads."""
        from slimnet.training.recipe.machine_settings import Tuning

        return Tuning(
            threads=self.threads or threads, compiled=self.compiled, cuda_graph=self.cuda_graph, tf32=self.tf32
        )


def on_device(command: Command) -> Command:
    """Add `--device`, checked to exist, to a command that takes a `network`, which is loaded onto it."""

    @functools.wraps(command)
    def placed(device: str, network: Network, **others: Any) -> Any:
        return command(network=replace(network, device=device), **others)

    option = click.option(
        "--device",
        default="cpu",
        show_default=True,
        metavar="DEVICE",
        callback=lambda _, __, name: Machine(device=name).chosen_device(),
        help="The device of the networks: cpu, cuda or cuda:N.",
    )
    return option(placed)


machine_options = as_one("machine", Machine, OPTIONS)
"""Add the options; the command gets them as one `machine`."""


def launched_with_others() -> bool:
    """Whether torchrun started this process with others; it ends all of them if one fails."""
    return os.environ.get("WORLD_SIZE", "1") != "1"
