"""Options of the workers that train the cells of a sweep or a reproduction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from slimnet_cli.options.machine import Machine
from slimnet_cli.options.shared import as_one

from slimnet.version import install_command

if TYPE_CHECKING:
    from slimnet.sweep.workers import Workers

OPTIONS = (
    click.option("--concurrent", type=click.IntRange(1), default=1, show_default=True, help="Runs at a time."),
    click.option("--threads", type=click.IntRange(1), help="Threads of each run."),
    click.option("--device", help='Where to train: "cpu", "cuda", "cuda:1".'),
    click.option("--ray", metavar="ADDRESS", help='Train on this Ray cluster ("auto" finds one); needs the extra ray.'),
    click.option("--gpus", type=click.FloatRange(0), default=0.0, help="On Ray, GPUs of each run; 0.25 is a quarter."),
)


@dataclass(frozen=True)
class WorkerOptions:
    """The workers that train the cells, as given on the command line: `gpus` is the share of each run on Ray."""

    concurrent: int
    threads: int | None
    device: str | None
    ray: str | None
    gpus: float

    @property
    def arguments(self) -> tuple[str, ...]:
        """The options of each `slimnet train`."""
        threads = ("--threads", str(self.threads)) if self.threads else ()
        return (*threads, *(("--device", self.device) if self.device else ()))

    def chosen_device(self) -> str:
        """The device of this process, checked to exist.

        Raises:
            click.UsageError: it does not.
        """
        # A device of a cluster need not exist on this machine.
        return Machine(device=None if self.ray else self.device).chosen_device()

    def workers(self) -> Workers:
        """The processes of this machine, or a Ray cluster.

        Raises:
            click.UsageError: Ray is not installed, or the device does not exist.
        """
        from slimnet.sweep.workers import Here, Ray

        if self.ray is None:
            self.chosen_device()
            return Here(self.concurrent)
        try:
            import ray as _  # noqa: F401
        except ImportError as error:
            raise click.UsageError(f"--ray needs Ray; {install_command('ray')}") from error
        return Ray(self.ray, {"num_cpus": float(self.threads or 1), "num_gpus": self.gpus})


worker_options = as_one("workforce", WorkerOptions, OPTIONS)
"""Add the options; the command gets them as one `workforce`."""
