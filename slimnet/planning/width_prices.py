"""Prices of widths: the time of one multiply-accumulate of a convolution, by its number of channels; data only."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from slimnet.errors import UsageError
from slimnet.storage.field_types import NotEmpty, Positive, Share, Size

PERIOD = 16
"""Kernels work on blocks of channels: widths whose remainders by this number are equal have similar prices."""

NEAR = 0.05
"""By how much more than the least a time counts as equal to it, at least; more if prices were measured less well."""

SURE = 2.0
"""By how many times its standard error a time must be longer, to count as longer."""


@dataclass(frozen=True)
class PriceCurve:
    """Some widths in ascending order, and the price of a multiply-accumulate at each, in any unit.

    There is at least one width for each remainder by `PERIOD`. `error` is the standard error of a price, relative to
    it.
    """

    widths: Annotated[tuple[Size, ...], NotEmpty()]
    prices: tuple[Positive, ...]
    error: Share = 0.0

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.prices):
            raise UsageError("a price curve has another number of widths than of prices")
        if list(self.widths) != sorted(set(self.widths)):
            raise UsageError("the widths of a price curve are not in ascending order")
        if len({width % PERIOD for width in self.widths}) < PERIOD:
            raise UsageError(f"a price curve lacks widths of some remainder by {PERIOD}")

    def up_to(self, width: int) -> np.ndarray:
        """The prices `(width + 1,)` of all widths from 0; that of 0 is 0.

        Between two measured widths of the same remainder the price is linear in the logarithm of the width; beyond them
        it is constant.
        """
        found = np.zeros(width + 1)
        known, prices = np.array(self.widths), np.array(self.prices)
        for remainder in range(PERIOD):
            asked = np.arange(remainder or PERIOD, width + 1, PERIOD)
            alike = known % PERIOD == remainder
            found[asked] = np.interp(np.log(asked), np.log(known[alike]), prices[alike])
        return found


@dataclass(frozen=True)
class WidthPrices:
    """The prices of three kinds of convolutions under one runtime, all in the same unit.

    `spatial` are convolutions with a kernel larger than 1×1, `pointwise` those with 1×1. `depthwise` are blocks of a
    depthwise convolution and the pointwise ones around it, as a whole.
    """

    runtime: str
    spatial: PriceCurve
    pointwise: PriceCurve
    depthwise: PriceCurve


def allowed_widths(times: np.ndarray, error: float = 0.0) -> np.ndarray:
    """Which widths are fast `(width + 1,)`, for the times of all widths from 0: those that no larger one surely beats.

    `error` is the relative standard error of a time. From any width, the next one that is allowed takes the least time
    of all that are not smaller, or hardly more.
    """
    least = np.minimum.accumulate(times[::-1])[::-1]
    fast: np.ndarray = times <= (1 + max(NEAR, SURE * error)) * least
    return fast
