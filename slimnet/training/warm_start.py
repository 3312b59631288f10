"""Warm starts from a trained network, and forecasts of the iterations that L2 needs to make its filters die."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from slimnet.checkpoint import load_checkpoint
from slimnet.errors import CheckpointError, UsageError
from slimnet.models import build
from slimnet.storage.files import sha256_of
from slimnet.training.analysis.metrics import DEAD_BELOW
from slimnet.training.recipe.optimisers import scales_and_shifts
from slimnet.training.recipe.recipe import Recipe

LONGEST_FORECAST = 500_000
"""The largest forecast in iterations, which takes about a second to compute."""

Move = Callable[[float], float]
"""An optimiser of one scalar: maps its gradient to the step, in units of the learning rate."""


@dataclass(frozen=True)
class Forecast:
    """The iterations until γ are dead at a recipe's initial learning rate.

    Attributes:
        threshold: a γ below this is dead.
        dead: the share of γ that are dead already, 0..1.
        median: iterations until half of the γ are dead; None: not within the largest forecast.
        all: iterations until all γ are dead; None likewise.
    """

    threshold: float
    dead: float
    median: int | None
    all: int | None


def with_digest(recipe: Recipe) -> Recipe:
    """The recipe with the SHA-256 of its warm start; unchanged if it has none.

    Raises:
        CheckpointError: the file cannot be read.
    """
    return recipe if recipe.warm_start is None else replace(recipe, warm_start_sha256=_digest(recipe.warm_start))


def first_network(recipe: Recipe) -> nn.Module:
    """The recipe's network at the start of a run: with the weights of its warm start, or random ones.

    The warm start may be any checkpoint that `slimnet.load_checkpoint` reads. Random weights are drawn from torch's
    default generator, which the caller seeds; the network's construction draws the same numbers in both cases.

    Raises:
        CheckpointError: the file cannot be read, does not fit, or has another SHA-256 than the recipe says.
        ArchitectureError: the network cannot be built.
    """
    if recipe.warm_start is None:
        return build(recipe.arch, recipe.arch_args)
    if recipe.warm_start_sha256 not in (None, _digest(recipe.warm_start)):
        raise CheckpointError(
            f"{recipe.warm_start} has changed: the recipe was written for a file with SHA-256 "
            f"{recipe.warm_start_sha256}; give it that one, or write the recipe again"
        )
    return load_checkpoint(recipe.warm_start, recipe.arch, recipe.arch_args)


def _digest(path: str) -> str:
    if Path(path).is_dir():
        raise CheckpointError(
            f"{path} is a folder, and training starts from a checkpoint file; name a run's model.pt, or train the "
            "network of a bundle further with slimnet finetune"
        )
    try:
        return sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def iterations_to_kill(model: nn.Module, recipe: Recipe, threshold: float = DEAD_BELOW) -> Forecast:
    """The iterations that the recipe's regularisers need to bring the γ of `model` below the threshold, without drops.

    It is a lower bound for γ without a gradient of the loss: the optimiser's recursion is applied to one scalar whose
    gradient is that of the regularisers. With γ₀ the initial γ, τ the threshold, and λ of L2, the result is

    * SGD: γ₀·exp(−lr·λ·t / (1 − momentum)), so (1 − momentum)/(lr·λ) · ln(γ₀/τ);
    * Adam, RMSprop: lr per step, so γ₀/lr for any λ, plus up to 2/(1 − √β₂) (ρ for β₂) while the moving average still
      contains larger gradients, plus eps/(lr·λ) · ln(γ₀/τ), which matters only if eps is large;
    * AMSGrad, which keeps the largest average: lr·γ/γ₀ per step, so at most γ₀/lr · ln(γ₀/τ);
    * Adamax, which decays by β₂ per step: about ln(1 + ln(γ₀/τ)·γ₀·ln(1/β₂)/lr) / ln(1/β₂), for γ₀ < lr/(1 − β₂);
    * Adagrad: (γ₀²·ln(γ₀²/τ²) − γ₀² + τ²) / (8·lr²), and a little more;
    * Adadelta: ln(γ₀/τ)/(lr·λ), since its steps equal the gradients if these are well below √eps;
    * the paper's weight decay, with any of them: ln(γ₀/τ)/λ; decoupled weight decay: ln(γ₀/τ)/(lr·λ).

    A γ with a gradient of the loss may not decay at all. The noise of that gradient makes the steps of Adam and its
    variants smaller. Cost-aware L2 is taken at its mean.

    Raises:
        UsageError: the network has no BatchNorm, and thus no γ, or the threshold is not above 0.
    """
    if not threshold > 0:
        raise UsageError(f"the threshold is {threshold}; it must be above 0, such as 1e-3 (the paper's)")
    scales = scales_and_shifts(model).scales
    if not scales:
        raise UsageError(f"{type(model).__name__} has no BatchNorm, so no filter can be dead by its γ")
    sizes = torch.cat([scale.detach().reshape(-1).abs().cpu().double() for scale in scales])
    dead = float((sizes < threshold).double().mean())
    median, largest = (_iterations(float(each), recipe, threshold) for each in (sizes.median(), sizes.max()))
    return Forecast(threshold, dead, median, largest)


def _iterations(gamma: float, recipe: Recipe, threshold: float) -> int | None:
    """The steps until a positive γ is below the threshold or negative; None beyond the largest forecast."""
    if not (recipe.l2 or recipe.l1_gamma or recipe.decoupled or recipe.weight_decay):
        return 0 if gamma < threshold else None
    return next((steps for steps, reached in enumerate(path(gamma, recipe)) if reached < threshold), None)


def path(gamma: float, recipe: Recipe) -> Iterator[float]:
    """γ before the first step and after each, at the recipe's initial learning rate, without a gradient of the loss."""
    move, lr = _mover(recipe), recipe.lr * recipe.gamma_lr_scale
    yield gamma
    for _ in range(LONGEST_FORECAST):
        gamma *= 1 - lr * recipe.decoupled
        sign = (gamma > 0) - (gamma < 0)
        gamma -= lr * move(recipe.l2 * gamma + recipe.l1_gamma * sign)
        gamma *= 1 - recipe.weight_decay
        yield gamma


def _mover(recipe: Recipe) -> Move:
    match recipe.optimiser:
        case "sgd":
            return _sgd(recipe)
        case "adam" | "amsgrad":
            return _adam(recipe)
        case "adamax":
            return _adamax(recipe)
        case "adadelta":
            return _adadelta(recipe)
        case "adagrad":
            return _mean_square(recipe, kept=1.0, taken=1.0)
        case "rmsprop":
            return _mean_square(recipe, kept=recipe.rho, taken=1 - recipe.rho)


def _sgd(recipe: Recipe) -> Move:
    velocity = 0.0

    def move(gradient: float) -> float:
        nonlocal velocity
        velocity = recipe.momentum * velocity + gradient
        return gradient + recipe.momentum * velocity if recipe.nesterov else velocity

    return move


def _adam(recipe: Recipe) -> Move:
    (first, second), remembers = recipe.betas, recipe.optimiser == "amsgrad"
    mean = square = top = 0.0
    first_left = second_left = 1.0

    def move(gradient: float) -> float:
        nonlocal mean, square, top, first_left, second_left
        first_left, second_left = first_left * first, second_left * second
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient * gradient
        top = max(top, square) if remembers else square
        return mean / (1 - first_left) / (math.sqrt(top / (1 - second_left)) + recipe.eps)

    return move


def _adamax(recipe: Recipe) -> Move:
    first, second = recipe.betas
    mean = size = 0.0
    left = 1.0

    def move(gradient: float) -> float:
        nonlocal mean, size, left
        left *= first
        mean = first * mean + (1 - first) * gradient
        size = max(second * size, abs(gradient) + recipe.eps)
        return mean / (1 - left) / size

    return move


def _adadelta(recipe: Recipe) -> Move:
    rho, eps = recipe.rho, recipe.eps
    square = moved = 0.0

    def move(gradient: float) -> float:
        nonlocal square, moved
        square = rho * square + (1 - rho) * gradient * gradient
        step = math.sqrt((moved + eps) / (square + eps)) * gradient
        moved = rho * moved + (1 - rho) * step * step
        return step

    return move


def _mean_square(recipe: Recipe, kept: float, taken: float) -> Move:
    """Adagrad and RMSprop: the gradient divided by the root of a sum or moving average of its squares."""
    square = 0.0

    def move(gradient: float) -> float:
        nonlocal square
        square = kept * square + taken * gradient * gradient
        return gradient / (math.sqrt(square) + recipe.eps)

    return move
