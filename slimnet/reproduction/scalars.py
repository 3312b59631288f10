"""Figure 4 and supplementary figure 3: the effect of each regulariser on a scalar with low gradients of the loss.

A scalar starts at 1. The gradient of its loss is noise with mean 0, and the trainer's optimisers and regularisers
update it. The paper prints these figures as images, so the settings are a reconstruction: see `LowGradients`.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from slimnet.errors import UsageError
from slimnet.storage.field_types import Size
from slimnet.storage.records import build
from slimnet.training.analysis.metrics import DEAD_BELOW
from slimnet.training.recipe.optimisers import make_optimiser, set_learning_rate
from slimnet.training.recipe.recipe import OptimiserName, Recipe
from slimnet.training.recipe.regularisers import Regularisers

Regulariser = Literal["l2", "weight_decay"]

STRENGTHS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""λ of the curves: the range of the paper's tables."""

FIGURE_4: tuple[OptimiserName, ...] = ("adam", "sgd")
SUPPLEMENTARY_FIGURE_3: tuple[OptimiserName, ...] = ("amsgrad", "adamax", "adagrad", "adadelta", "rmsprop")
"""The optimisers of each figure; it is a reconstruction that the second one shows all others of the paper."""

NAMES = {
    "sgd": "SGD", "adam": "Adam", "amsgrad": "AMSGrad", "adamax": "Adamax", "adagrad": "Adagrad",
    "adadelta": "Adadelta", "rmsprop": "RMSprop", "l2": "L2", "weight_decay": "weight decay",
}  # fmt: skip
"""The paper's names of optimisers and regularisers."""


@dataclass(frozen=True)
class LowGradients:
    """The simulation of low gradients. It is a reconstruction, since the paper's figures are images.

    Attributes:
        start: the initial value, that of γ.
        noise: standard deviation of the loss's gradient, which is normal with mean 0 and drawn in every step.
        early_noise: the same for the early steps, in which a network still learns; it affects optimiser states.
        early: the number of early steps.
        iterations: the number of all steps.
        seeds: the number of independent draws of the noise.
    """

    start: float = 1.0
    noise: float = 1e-5
    early_noise: float = 1e-3
    early: int = 100
    iterations: Size = 10_000
    seeds: Size = 16

    def __post_init__(self) -> None:
        for name in ("iterations", "seeds"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 1 is needed to draw a curve")

    def gradients(self) -> torch.Tensor:
        """The gradients of every step and seed, `(iterations, seeds)`; they do not depend on the number of seeds."""
        drawn = []
        for seed in range(self.seeds):
            generator = torch.Generator().manual_seed(seed)
            drawn.append(torch.randn(self.iterations, generator=generator, dtype=torch.float64, device="cpu"))
        noise = torch.full((self.iterations, 1), self.noise, dtype=torch.float64, device="cpu")
        noise[: self.early] = self.early_noise
        return torch.stack(drawn, dim=1) * noise


@dataclass(frozen=True)
class Curve:
    """One optimiser with one regulariser at one λ.

    Attributes:
        iterations: the steps at which the curve is sampled, from 0.
        low, median, high: the 10th, 50th and 90th percentile of the absolute value over the seeds.
        half, tenth: the first step at which the scalar is at most this share of its initial value (or has changed its
            sign), as the median over the seeds; None if half of them never reach it.
        dead: the same for the threshold below which γ is dead.
    """

    optimiser: OptimiserName
    regulariser: Regulariser
    strength: float
    iterations: tuple[int, ...]
    low: tuple[float, ...]
    median: tuple[float, ...]
    high: tuple[float, ...]
    half: int | None
    tenth: int | None
    dead: int | None

    def __post_init__(self) -> None:
        lengths = {len(self.iterations), len(self.low), len(self.median), len(self.high)}
        if len(lengths) > 1 or 0 in lengths or not self.median[0]:
            raise UsageError("a curve has one iteration and value more or less than others, or begins with nothing")

    @property
    def name(self) -> str:
        """The names of optimiser and regulariser."""
        return f"{NAMES[self.optimiser]} with {NAMES[self.regulariser]}"


@dataclass(frozen=True)
class ScalarFigure:
    """A figure of the paper: curves of one simulation."""

    title: str
    gradients: LowGradients
    curves: tuple[Curve, ...]

    def curve(self, optimiser: OptimiserName, regulariser: Regulariser, strength: float) -> Curve:
        """The curve of one setting.

        Raises:
            UsageError: the figure has no such curve.
        """
        for each in self.curves:
            if (each.optimiser, each.regulariser, each.strength) == (optimiser, regulariser, strength):
                return each
        raise UsageError(f"{self.title} has no curve of {optimiser} with {regulariser} {strength:g}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ScalarFigure":
        """Read the output of `dataclasses.asdict` of a figure, as JSON data.

        Raises:
            UsageError: it is not a figure.
        """
        return build(cls, data, "not a simulated figure", UsageError)

    @property
    def optimisers(self) -> tuple[OptimiserName, ...]:
        """The optimisers, in the order of the panels."""
        return tuple(dict.fromkeys(each.optimiser for each in self.curves))

    @property
    def strengths(self) -> tuple[float, ...]:
        """Every λ, the largest first."""
        return tuple(sorted({each.strength for each in self.curves}, reverse=True))

    def order(self, strength: float) -> tuple[Curve, ...]:
        """The curves of one λ, fastest first: by the step of one half, then by the remaining value at the end."""
        never = self.gradients.iterations + 1
        curves = (each for each in self.curves if each.strength == strength)
        return tuple(sorted(curves, key=lambda each: (never if each.half is None else each.half, each.median[-1])))


def figure_4(gradients: LowGradients | None = None, strengths: Sequence[float] = STRENGTHS) -> ScalarFigure:
    """L2 and weight decay under Adam and SGD."""
    return scalar_figure("Figure 4", FIGURE_4, gradients or LowGradients(), strengths)


def supplementary_figure_3(
    gradients: LowGradients | None = None, strengths: Sequence[float] = STRENGTHS
) -> ScalarFigure:
    """L2 and weight decay under the paper's other optimisers."""
    return scalar_figure("Supplementary figure 3", SUPPLEMENTARY_FIGURE_3, gradients or LowGradients(), strengths)


def scalar_figure(
    title: str, optimisers: Sequence[OptimiserName], gradients: LowGradients, strengths: Sequence[float]
) -> ScalarFigure:
    """Simulate every optimiser, at the paper's settings, with both regularisers at every strength."""
    drawn = gradients.gradients()
    curves = [
        curve(
            scalar_recipe(optimiser, regulariser, strength, gradients.iterations), regulariser, drawn, gradients.start
        )
        for optimiser in optimisers
        for regulariser in get_args(Regulariser)
        for strength in strengths
    ]
    return ScalarFigure(title, gradients, tuple(curves))


def scalar_recipe(optimiser: OptimiserName, regulariser: Regulariser, strength: float, iterations: int) -> Recipe:
    """The recipe whose optimiser and regulariser update the scalar."""
    regularised = {regulariser: strength}
    return Recipe(arch="scalar", data="noise", iterations=iterations, optimiser=optimiser, **regularised)  # type: ignore[arg-type]


def curve(recipe: Recipe, regulariser: Regulariser, gradients: torch.Tensor, start: float) -> Curve:
    """Simulate one setting and sample its curve."""
    sizes = simulate(recipe, gradients, start)
    read = reading_points(len(gradients))
    low, median, high = torch.quantile(sizes[read].abs(), sizes.new_tensor([0.1, 0.5, 0.9]), dim=1).tolist()
    return Curve(
        optimiser=recipe.optimiser,
        regulariser=regulariser,
        strength=getattr(recipe, regulariser),
        iterations=tuple(read),
        low=tuple(low),
        median=tuple(median),
        high=tuple(high),
        half=first_below(sizes, start / 2),
        tenth=first_below(sizes, start / 10),
        dead=first_below(sizes, DEAD_BELOW),
    )


def simulate(recipe: Recipe, gradients: torch.Tensor, start: float = 1.0) -> torch.Tensor:
    """The scalar before the first step and after each, `(T + 1, S)`, for gradients `(T, S)` of its loss.

    The recipe's optimiser, regularisers and schedule are those of training; every column is an independent scalar.
    """
    model = Numbers(start, gradients)
    optimiser, regularisers = make_optimiser(recipe, model), Regularisers(recipe, model)
    path = gradients.new_empty(len(gradients) + 1, gradients.shape[1])
    path[0] = start
    for iteration, gradient in enumerate(gradients):
        scale = recipe.schedule_scale(iteration)
        set_learning_rate(optimiser, recipe.lr * scale)
        model.values.grad = gradient.clone()
        regularisers.before_step(optimiser)
        optimiser.step()
        regularisers.after_step(scale)
        path[iteration + 1] = model.values.detach()
    return path


class Numbers(nn.Module):
    """A network of independent scalars `(S,)`; every optimiser of the paper is elementwise."""

    def __init__(self, start: float, gradients: torch.Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(gradients.new_full(gradients.shape[1:], start))


def reading_points(iterations: int, most: int = 100) -> list[int]:
    """Approximately equidistant steps from 0 to the last."""
    points = min(most, iterations)
    return [round(iterations * point / points) for point in range(points + 1)]


def first_below(path: torch.Tensor, limit: float) -> int | None:
    """The median, over the columns of a path `(T + 1, S)`, of the first row below a limit; never sorts last."""
    under = path < limit
    never = len(path)
    firsts = torch.where(under.any(0), under.int().argmax(0), never).tolist()
    middle = statistics.median_high(firsts)
    return None if middle == never else middle


@dataclass(frozen=True)
class Claim:
    """A statement of the paper about a figure, and whether our figure confirms it."""

    text: str
    holds: bool
    found: str


def claims(figure: ScalarFigure) -> tuple[Claim, ...]:
    """The statements about figure 4: Adam with L2 is the fastest, already at small λ; the others are slow."""
    fastest = [fastest_is_adam_with_l2(figure, strength) for strength in figure.strengths]
    reached = [each for each in figure.strengths if figure.curve("adam", "l2", each).half is not None]
    return (*fastest, *(others_are_slow(figure, strength) for strength in reached[-1:]))


def fastest_is_adam_with_l2(figure: ScalarFigure, strength: float) -> Claim:
    """Whether Adam with L2 is the first of the curves of this λ to reach one half."""
    order = figure.order(strength)
    found = ", ".join(f"{each.name} {iterations(each.half)}" for each in order)
    holds = (order[0].optimiser, order[0].regulariser) == ("adam", "l2") and order[0].half is not None
    return Claim(f"λ = {strength:g}: Adam with L2 is the first to halve the number", holds, f"after {found}")


def others_are_slow(figure: ScalarFigure, strength: float) -> Claim:
    """Whether weight decay and SGD keep more than one half at the smallest λ at which Adam with L2 does not."""
    others = [each for each in figure.order(strength) if (each.optimiser, each.regulariser) != ("adam", "l2")]
    kept = ", ".join(f"{each.name} {100 * each.median[-1] / figure.gradients.start:.0f} %" for each in others)
    return Claim(
        f"λ = {strength:g}: weight decay and SGD still keep more than half where Adam with L2 does not",
        all(each.half is None for each in others),
        f"left after {figure.gradients.iterations:,} iterations: {kept}",
    )


def iterations(number: int | None) -> str:
    """A number of iterations, or "never"."""
    return "never" if number is None else f"{number:,}"
