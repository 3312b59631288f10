"""FastWidths: the rounding of widths to those that are fast under a runtime on this machine."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slimnet.planning.width_prices import WidthPrices
from slimnet.planning.width_rounding import Rounding

if TYPE_CHECKING:
    from slimnet.benchmark.runtimes.runtime import Runtime

FAST = "fast"
LOG = logging.getLogger("slimnet")


@dataclass(frozen=True)
class FastWidths:
    """Widths that are fast by the times of a runtime's kernels, which are measured once on a machine and stored.

    With `runtime` None it is the one that slim networks are made for. `threads` are those of the measurement; one tells
    kernels apart best. `progress` is called only if kernels are measured, with the number of finished groups, their
    total and the current one; `warn` with what could not be read or stored (default: the logger `slimnet`).
    """

    runtime: str | None = None
    threads: int = 1
    progress: Callable[[int, int, str], None] | None = None
    warn: Callable[[str], None] | None = None

    @property
    def measured_on(self) -> "Runtime":
        """The runtime whose kernels are measured: for a variant of torch, which has the same ones, torch.

        Raises:
            UsageError: there is none of that name.
        """
        from slimnet.benchmark.runtimes.table import DEPLOYED, RUNTIMES, find_runtime

        found = find_runtime(self.runtime or DEPLOYED)
        return RUNTIMES[0] if found.is_variant else found

    def rounding(self) -> Rounding:
        """The rounding, by stored times of kernels, or after about ten seconds of measuring.

        Raises:
            UsageError: there is no such runtime, or it does not run here.
        """
        return Rounding(prices=self.prices())

    def prices(self) -> WidthPrices:
        """The prices of widths, stored or measured and then stored.

        Raises:
            UsageError: as `rounding`.
        """
        from slimnet.kernel_widths.measuring import measure_prices
        from slimnet.kernel_widths.stored_prices import Key, read_prices, write_prices

        runtime, warn = self.measured_on, self.warn or LOG.warning
        key = Key.here(runtime, self.threads)
        found = read_prices(key, warn)
        if found is None:
            found = measure_prices(runtime, self.threads, self.progress)
            write_prices(key, found, warn)
        return found


def as_fast_widths(words: str) -> FastWidths | None:
    """What "fast" or "fast:RUNTIME" stands for; None if it is neither."""
    name, _, runtime = words.partition(":")
    return FastWidths(runtime or None) if name == FAST and words != f"{FAST}:" else None
