"""What a report is made of: plain values, each from an earlier stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from slimnet.benchmark import Comparison, Environment
from slimnet.certify import Certificate
from slimnet.plan import SurgeryPlan


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy (0 to 1) on the same images before and after the surgery."""

    before: float
    after: float
    images: int
    data: str


@dataclass(frozen=True)
class Training:
    """How a network was trained, as a series of points.

    `losses` and `dead` (the fraction of channels with |γ| below the threshold) have a value per point, `gammas` a row
    of |γ| per point with one column for each channel that is shown. `recipe` is what was asked for, as (name, value).
    """

    iterations: Sequence[int]
    losses: Sequence[float]
    dead: Sequence[float]
    gammas: Sequence[Sequence[float]]
    seconds: float
    recipe: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Report:
    """Everything a page is made of; what is None or empty is left out of it.

    `gammas` maps the layers that have a BatchNorm to the |γ| of its channels in the dense network.
    """

    title: str
    plan: SurgeryPlan
    certificate: Certificate
    environment: Environment
    gammas: Mapping[str, Sequence[float]] = field(default_factory=dict)
    accuracy: Accuracy | None = None
    comparison: Comparison | None = None
    training: Training | None = None
