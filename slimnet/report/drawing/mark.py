"""One network in a drawing of error against cost: data, for which nothing that draws is needed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mark:
    """One network: its cost, its error on test images (0..1), and the interval of the cost if it was measured.

    `before` is its error before fine-tuning, if there was any, which is drawn as a hollow mark.
    """

    series: str
    cost: float
    error: float
    interval: tuple[float, float] | None = None
    before: float | None = None
