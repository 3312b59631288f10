"""Recipe: everything that determines a training run, as one serialisable value."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from slimnet.errors import UsageError
from slimnet.models.untrusted import UntrustedName, check_arguments
from slimnet.storage.records import build, parse_json
from slimnet.training.recipe.ranges import WHOLE, is_finite, is_number, is_pair, is_whole, require

OptimiserName = Literal["sgd", "adam", "amsgrad", "adamax", "adadelta", "adagrad", "rmsprop"]
Precision = Literal["fp32", "bf16"]
Cost = Literal["macs", "params"]

DROP_FACTOR = 0.1
"""The default factor of learning rate and weight decay at each drop of the schedule."""

BASE_SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "momentum": 0.9},
    "adam": {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-8},
    "amsgrad": {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-8},
    "adamax": {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8},
    "adadelta": {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
    "adagrad": {"lr": 1e-2, "eps": 1e-10},
    "rmsprop": {"lr": 1e-3, "rho": 0.99, "eps": 1e-8},
}
"""The paper's settings of each optimiser; those not printed (Adamax, Adagrad, RMSprop's ρ) are torch's defaults."""

LATER: Mapping[str, Any] = {"shrink_round": 1, "held_out": 0.0, "lengths_before": ()}
"""Fields that were added once runs were named by the digest of their recipe's JSON, with their defaults."""

UNUSED = {"momentum": 0.9, "betas": (0.9, 0.99), "rho": 0.9, "eps": 1e-8}
"""The value of settings that a recipe's optimiser does not have."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run: network, data, optimiser, regularisers, schedule, precision and seed.

    The defaults are the paper's on CIFAR except for the regularisers, which are off. Lengths are in iterations, which
    do not depend on the batch size.

    Attributes:
        arch: the name of an architecture (`slimnet.models.build`).
        arch_args: arguments of that network, as JSON values (tuples become lists).
        data: the source of a data set (`slimnet.data.load_data`).
        image_size: the height and width, in pixels, that images are resized to; None keeps their size.
        iterations: optimiser steps, each on exactly `batch_size` images.
        optimiser: one of the paper's seven: sgd, adam, amsgrad, adamax, adadelta, adagrad, rmsprop.
        lr: learning rate before the first drop. None is replaced by the paper's value for that optimiser, here and in
            the settings below; recipes derived from this one then keep these numbers.
        momentum: of SGD.
        nesterov: whether SGD uses Nesterov momentum, as in Network Slimming.
        betas: decay rates of the two moments of Adam and its variants.
        rho: decay rate of the mean square in Adadelta and RMSprop.
        eps: added to the denominator. Under Adam a dead γ, which only L2 changes, decays to 0 if lr·λ/eps is below
            38 (2(1 + β₁)/(1 − β₁), the stability bound); otherwise it oscillates by about lr/10.
        l2: λ added to the gradient as λθ, for every parameter, γ and β included (L2 regularisation).
        weight_decay: λ of θ ← (1 − λ·s)·θ after the step, where s is the schedule's factor and not lr (section 2.2).
        decoupled: λ of θ ← (1 − lr·λ)·θ before the step, which is AdamW's weight decay.
        l1_gamma: λ added to the gradient of every γ as λ·sign(γ) (Network Slimming).
        cost_aware: scale the L2 of each γ by the cost of its channel, in MACs or parameters, with mean `l2` (suggested
            in section 5); None for the same L2 everywhere.
        gamma_lr_scale: factor on the learning rate of every γ.
        beta_lr_scale: factor on the learning rate of every β.
        gamma_init: initial value of every γ; None keeps that of the network, which is 1.
        beta_init: initial value of every β; None keeps that of the network, which is 0.
        batch_size: images per step, of all processes together.
        drops: the iterations at which the schedule's factor is multiplied by `drop_factor`.
        drop_factor: factor on the schedule's factor at each drop.
        cosine: cosine schedule: the factor falls to 0 along half a cosine over all iterations, instead of drops.
        lengths_before: of a run whose length was changed on its way, if steps depend on it: up to which iteration it
            was to have how many iterations (`continued`).
        flips: mirror a random half of the images horizontally.
        crop: shift each image by up to this many pixels at random, with black padding (Network Slimming: 4).
        held_out: the share, 0..1, of the training images that are not trained on, but validated on (`hold_out`).
        precision: "fp32", or "bf16" for a forward and backward pass in bfloat16 over float32 weights.
        sync_batchnorm: BatchNorm statistics over the whole batch if several GPUs share it.
        shrink_every: during training, at multiples of this iteration, remove channels that were dead in three
            successive checks; 0 for never. The run continues as if these channels were set to zero.
        shrink_round: widths are rounded up to multiples of this number while the run shrinks, which hardware may like,
            and are exact at its end; 1 for exact widths throughout.
        warm_start: the checkpoint with the initial weights; None for random ones.
        warm_start_sha256: SHA-256 of that file, so that a resumed run notices another one.
        seed: seed of the initial weights, the order of the images, their augmentation, and dropout.

    Raises:
        UsageError: a value is out of its range or of another type.
    """

    arch: str
    data: str
    iterations: int
    arch_args: dict[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    optimiser: OptimiserName = "adam"
    lr: float = None  # type: ignore[assignment]  # replaced by the optimiser's own
    momentum: float = None  # type: ignore[assignment]
    nesterov: bool = False
    betas: tuple[float, float] = None  # type: ignore[assignment]
    rho: float = None  # type: ignore[assignment]
    eps: float = None  # type: ignore[assignment]
    l2: float = 0.0
    weight_decay: float = 0.0
    decoupled: float = 0.0
    l1_gamma: float = 0.0
    cost_aware: Cost | None = None
    gamma_lr_scale: float = 1.0
    beta_lr_scale: float = 1.0
    gamma_init: float | None = None
    beta_init: float | None = None
    batch_size: int = 40
    drops: tuple[int, ...] = ()
    drop_factor: float = DROP_FACTOR
    cosine: bool = False
    lengths_before: tuple[tuple[int, int], ...] = ()
    flips: bool = False
    crop: int = 0
    held_out: float = 0.0
    precision: Precision = "fp32"
    sync_batchnorm: bool = False
    shrink_every: int = 0
    shrink_round: int = 1
    warm_start: str | None = None
    warm_start_sha256: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self._require(
            "optimiser", self.optimiser in get_args(OptimiserName), f"one of {', '.join(get_args(OptimiserName))}"
        )
        for name, value in (UNUSED | BASE_SETTINGS[self.optimiser]).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        self._check_names()
        self._check_counts()
        self._check_numbers()
        self._freeze()

    def _require(self, name: str, holds: object, wanted: str) -> None:
        require(holds, name, getattr(self, name), wanted)

    def _check_names(self) -> None:
        for name in ("arch", "data"):
            self._require(name, isinstance(getattr(self, name), str) and getattr(self, name), "a name")
        for name in ("warm_start", "warm_start_sha256"):
            value = getattr(self, name)
            self._require(name, value is None or (isinstance(value, str) and value), "a text, or None")
        for name in ("gamma_init", "beta_init"):
            kept = self.warm_start is None or getattr(self, name) is None
            self._require(name, kept, "None, since the warm start says what they begin with")
        for name in ("flips", "nesterov", "sync_batchnorm", "cosine"):
            self._require(name, isinstance(getattr(self, name), bool), "true or false")
        self._require("precision", self.precision in get_args(Precision), "fp32 or bf16")
        self._require("cost_aware", self.cost_aware in (None, *get_args(Cost)), "macs or params, or None")
        self._require("nesterov", not self.nesterov or self.optimiser == "sgd", "false: only sgd has it")

    def _check_counts(self) -> None:
        for name in ("iterations", "batch_size", "shrink_round"):
            self._require(name, is_whole(getattr(self, name), 1), WHOLE.format(1))
        for name in ("seed", "crop", "shrink_every"):
            self._require(name, is_whole(getattr(self, name), 0), WHOLE.format(0))
        shrinks = self.shrink_every or self.shrink_round == 1
        self._require("shrink_round", shrinks, "1, since the run does not shrink; set shrink_every as well")
        self._require("image_size", self.image_size is None or is_whole(self.image_size, 1), "pixels, or None")
        rising = isinstance(self.drops, tuple | list) and all(is_whole(drop, 1) for drop in self.drops)
        self._require("drops", rising and list(self.drops) == sorted(set(self.drops)), "rising iterations from 1 up")
        self._require("drops", not (self.cosine and self.drops), "empty, since the cosine says how the rate falls")

        pairs = self.lengths_before
        whole = isinstance(pairs, tuple | list) and all(map(is_pair, pairs))
        ends = [until for until, _ in pairs] if whole else []
        wanted = "pairs of an iteration and a length, the iterations rising"
        self._require("lengths_before", whole and ends == sorted(set(ends)), wanted)

    def _check_numbers(self) -> None:
        for name in ("lr", "eps"):
            self._require(name, is_number(getattr(self, name), above=0), "a number above 0")
        for name in ("l2", "l1_gamma", "gamma_lr_scale", "beta_lr_scale"):
            self._require(name, is_number(getattr(self, name)), "a number of at least 0")
        for name in ("momentum", "weight_decay", "decoupled", "rho", "held_out"):
            self._require(name, is_number(getattr(self, name), below=1), "a number of at least 0 and below 1")
        self._require("drop_factor", is_number(self.drop_factor, above=0, below=1), "a number between 0 and 1")
        for name in ("gamma_init", "beta_init"):
            value = getattr(self, name)
            self._require(name, value is None or is_finite(value), "a number, or None")
        pair = isinstance(self.betas, tuple | list) and len(self.betas) == 2
        self._require("betas", pair and all(is_number(b, below=1) for b in self.betas), "two numbers in [0, 1)")

    def _freeze(self) -> None:
        """Convert lists to tuples, and the arguments by JSON, so that a recipe equals the one read from its JSON."""
        object.__setattr__(self, "betas", tuple(self.betas))
        object.__setattr__(self, "drops", tuple(self.drops))
        object.__setattr__(self, "lengths_before", tuple((until, length) for until, length in self.lengths_before))
        self._require("arch_args", isinstance(self.arch_args, dict), "a dict from argument names to values")
        try:
            copy = json.loads(json.dumps(self.arch_args, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"the recipe's arch_args cannot be written as JSON: {error}") from error
        object.__setattr__(self, "arch_args", copy)

    def schedule_scale(self, iteration: int) -> float:
        """The schedule's factor s after `iteration` steps: `drop_factor` for each drop so far, or the cosine."""
        if self.cosine:
            return (1 + math.cos(math.pi * iteration / self.length_at(iteration))) / 2
        return self.drop_factor ** sum(drop <= iteration for drop in self.drops)

    def length_at(self, iteration: int) -> int:
        """The iterations that the run is to have at the step after `iteration` steps."""
        return next((length for until, length in self.lengths_before if iteration < until), self.iterations)

    def lasting(self, iterations: int) -> "Recipe":
        """The same recipe with another number of iterations, with drops at the same fractions of it.

        Raises:
            UsageError: the number is below 1.
        """
        if iterations == self.iterations:
            return self
        drops = sorted({max(1, drop * iterations // self.iterations) for drop in self.drops})
        return dataclasses.replace(self, iterations=iterations, drops=tuple(drops), lengths_before=())

    def to_json(self) -> str:
        """The recipe as JSON text, one field per line; the fields in `LATER` only if they are set."""
        unset = {name for name, default in LATER.items() if getattr(self, name) == default}
        written = {name: value for name, value in dataclasses.asdict(self).items() if name not in unset}
        return json.dumps(written, indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """Read the output of `to_json`, also of earlier versions; fields with a default may be missing.

        The text is untrusted: a network from other code (`package.module:factory`) is not built unless the recipe is
        `trusted`.

        Raises:
            UsageError: the text is not JSON, or not a recipe.
        """
        values = parse_json(text, "the recipe", UsageError)
        if not isinstance(values, dict):
            raise UsageError("the recipe must be a JSON object of field names and values")
        if "drop_at" in values and "drops" not in values:
            # The name of the only drop, before recipes could have several.
            drop = values.pop("drop_at")
            values["drops"] = [] if drop is None else [drop]
        read = build(cls, values, "the recipe", UsageError)
        return dataclasses.replace(read, arch=UntrustedName(read.arch))

    def trusted(self, *, arguments: bool = True) -> "Recipe":
        """The same recipe, trusted: its network is built by the code that it names.

        Without `arguments` only the name is trusted, such as when the caller repeats it.

        Raises:
            ArchitectureError: the arguments would open other files, and only the name is trusted.
        """
        if not arguments:
            check_arguments(self.arch, self.arch_args)
        return dataclasses.replace(self, arch=str(self.arch))


DIGITS_DEMO = Recipe(
    arch="basicnet",
    arch_args={"width": 0.25, "hidden": 64, "in_channels": 1, "num_classes": 10},
    data="digits",
    optimiser="adam",
    lr=5e-3,
    eps=1e-5,
    l2=2e-2,
    batch_size=20,
    iterations=2500,
    drops=(1500,),
)
"""The demo's run: 84 to 85 % of the filters die, the test accuracy is 98.6 to 99.2 % (seeds 0 to 5).

It takes about 45 s on one thread of an AMD EPYC (Milan). A network this small gains nothing from more threads, which
cost minutes on busy cores. The settings were found by experiment: lr and λ are far above the paper's, since the run is
160 times shorter; eps is too, so that dead γ decay to 0 after the drop (most are then below 1e-8).
"""
