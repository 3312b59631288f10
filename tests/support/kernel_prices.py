"""Made-up times of kernels, and a cache folder that holds them for this machine."""

from collections.abc import Callable
from pathlib import Path

from slimnet.benchmark.runtimes.table import RUNTIMES
from slimnet.kernel_widths.stored_prices import FOLDER, Key, write_prices
from slimnet.planning.width_prices import PERIOD, PriceCurve, WidthPrices

WIDTHS = tuple(range(1, 16 * PERIOD + 1))


def made_up(price: Callable[[int], float], runtime: str = "onnxruntime") -> WidthPrices:
    """Prices by a formula over the width, the same for all kernels."""
    curve = PriceCurve(WIDTHS, tuple(float(price(width)) for width in WIDTHS))
    return WidthPrices(runtime, curve, curve, curve)


def blocks_of(size: int, odd: float = 1.5) -> Callable[[int], float]:
    """Kernels that work on whole blocks of channels, and take longer where the last one is not full."""
    return lambda width: (-(-width // size) * size / width) * (1.0 if width % size == 0 else odd)


def fail(words: str) -> None:
    raise AssertionError(words)


def store_proportional(cache: Path) -> None:
    """Store prices, of every runtime on one thread here, by which every channel costs the same: exact widths are best.

    The environment variable SLIMNET_CACHE has to name the folder.
    """
    for runtime in RUNTIMES:
        if not runtime.is_variant:
            write_prices(Key.here(runtime, 1), made_up(lambda _: 1.0, runtime.name), fail)
    assert (cache / FOLDER).is_dir()
