"""The options of a measurement: batch sizes, threads, devices, runtimes and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from slimnet_cli.options.groups import in_group
from slimnet_cli.options.names import RUNTIMES, some_of
from slimnet_cli.options.shared import as_one, positive_numbers

if TYPE_CHECKING:
    from slimnet.benchmark import Settings

measuring = in_group("Measuring")


def thread_counts(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int | None, ...] | None:
    """Turn "1,all" into (1, None): None means every core, the number of which the library determines."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part == "all" or (part.isdecimal() and int(part) > 0) for part in parts):
        raise click.BadParameter(f"{text!r} is not a list of positive whole numbers, or all, such as 1,all")
    return tuple(dict.fromkeys(None if part == "all" else int(part) for part in parts))


def names(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...]:
    """Turn "cpu,cuda" into ("cpu", "cuda")."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(","))) if text else ()


OPTIONS = (
    measuring("--batch", "batches", default="1,32", callback=positive_numbers, help="Batch sizes.  [default: 1,32]"),
    measuring("--threads", callback=thread_counts, metavar="N,N", help='Numbers of threads.  [default: "all"]'),
    measuring("--device", "devices", default="cpu", callback=names, help="cpu, cuda or both.  [default: cpu]"),
    measuring(
        "--runtime",
        "runtimes",
        callback=some_of("runtime", (*RUNTIMES, "all")),
        metavar="NAME,NAME",
        help="torch, torch.compile, torch.graph (CUDA graphs), onnxruntime, openvino, ncnn, executorch, tensorrt, "
        "all.  [default: all but torch.compile, ncnn, executorch and tensorrt]",
    ),
    measuring("--layers", is_flag=True, help="Time every layer as well, in torch, onnxruntime, openvino, executorch."),
    measuring(
        "--seconds", type=float, default=4.0, help="Time for each runtime, device, batch size, ....  [default: 4]"
    ),
)


@dataclass(frozen=True)
class Measuring:
    """The options for measuring contenders; no threads mean every core, and so does None among them."""

    batches: tuple[int, ...]
    threads: tuple[int | None, ...] | None
    devices: tuple[str, ...]
    runtimes: tuple[str, ...]
    layers: bool
    seconds: float

    def settings(self) -> Settings:
        """The library's settings.

        Raises:
            UsageError: nothing can be measured so.
        """
        from slimnet.benchmark import Settings, usable_cores

        cores = usable_cores()
        threads = tuple(dict.fromkeys(each or cores for each in self.threads or (cores,)))
        if max(threads) > cores:
            raise click.UsageError(f"{max(threads)} threads are more than the {cores} cores; give all, or fewer")
        return Settings(
            tuple(dict.fromkeys(self.batches)), threads, self.seconds, self.devices, self.runtimes, self.layers
        )


measuring_options = as_one("measuring", Measuring, OPTIONS)
"""Add the options; the command gets them as one `measuring`."""
