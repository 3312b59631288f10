"""The parts of a comparison that take time, by name, and the report of how much of each is done."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slimnet.benchmark.contender import Contender
from slimnet.benchmark.latency import place
from slimnet.benchmark.layers import has_layers
from slimnet.benchmark.settings import Settings, cells, shared_runtimes
from slimnet.benchmark.turns import Watch
from slimnet.data import ImageData

WatchPart = Callable[[int, float], None]
"""Called with the number of the current part, from 0, and the share of it that is done, 0..1."""


@dataclass(frozen=True)
class Part:
    """A part of a comparison; `seconds` is how long it takes, None if that depends on the networks."""

    name: str
    seconds: float | None = None


def parts(contenders: Sequence[Contender], settings: Settings, data: ImageData | None = None) -> tuple[Part, ...]:
    """The parts of a comparison in their order.

    Raises:
        UsageError: as `compare`.
    """
    found = [] if data is None else accuracy_parts(contenders)
    for cell in cells(contenders, settings):
        where = f"{place(cell.runtime, cell.device)}, batch {cell.batch}, {cell.threads} thread"
        where = where if cell.threads == 1 else f"{where}s"
        found.append(Part(f"latency on {where}", settings.seconds))
        if settings.layers and has_layers(cell):
            found.append(Part(f"layers on {where}", settings.seconds))
    return tuple(found)


def accuracy_parts(contenders: Sequence[Contender]) -> list[Part]:
    """The accuracy of each network by each runtime."""
    return [
        Part(f"accuracy of {contender.name} by {runtime}")
        for runtime in shared_runtimes(contenders)
        for contender in contenders
    ]


def begun(watch: WatchPart | None, number: int) -> Watch | None:
    """Report that a part begins; returns the function that reports the share of it."""
    if watch is None:
        return None
    watch(number, 0.0)
    return lambda share: watch(number, share)


def counting(watch: Watch | None) -> Callable[[int, int], None] | None:
    """The progress callback of a pass over images that reports its share."""
    return None if watch is None else lambda done, total: watch(done / max(1, total))
