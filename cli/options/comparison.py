"""The options of `slimnet compare`: methods, budgets, fine-tuning, and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.groups import in_group
from slimnet_cli.options.names import ENGINES, METHODS, some_of
from slimnet_cli.options.shared import Command, as_one
from slimnet_cli.options.tuning import step_options

if TYPE_CHECKING:
    from slimnet.comparison import Settings
    from slimnet.training import Recipe

methods, tuning, judging = map(in_group, ("Methods", "Fine-tuning", "Evaluation"))


def shares(_: click.Context, __: click.Parameter, text: str | None) -> tuple[float, ...]:
    """Turn "0.75,0.5" into a tuple of numbers."""
    try:
        return tuple(dict.fromkeys(float(part) for part in (text or "").split(",") if part.strip()))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a list of shares such as 0.75,0.5") from error


OPTIONS: tuple[Callable[[Command], Command], ...] = (
    methods(
        "--methods",
        default="implicit,li2017,liu2017,random",
        show_default=True,
        callback=some_of("method", METHODS),
        metavar="NAME,...",
        help="implicit, li2017, liu2017, random, fpgm, taylor, group-l1, group-l2, group-taylor, bnscale, lamp.",
    ),
    methods("--budget", "budgets", callback=shares, metavar="SHARE,...", help="Fractions to keep: 0.75,0.5."),
    methods(
        "--unit",
        type=click.Choice(("macs", "params", "channels", "latency")),
        default="macs",
        show_default=True,
        help="The unit of the budgets.",
    ),
    methods(
        "--engine",
        "engines",
        callback=some_of("engine", ENGINES),
        metavar="NAME,...",
        help="Also let another library remove channels by the same scores: torch-pruning.",
    ),
    methods(
        "--sparsify",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help="Iterations with L1 on γ before liu2017 chooses; 0: none.",
    ),
    methods("--l1", type=float, help="λ of that L1.  [default: 1e-4, as Liu et al.]"),
    methods(
        "--recalibrate/--plain", default=True, help="Re-estimate BatchNorm statistics, or keep them, as the papers do."
    ),
    methods(
        "--measure-on",
        type=click.IntRange(0),
        default=256,
        show_default=True,
        metavar="N",
        help="Training images, without labels, for BatchNorm statistics or --refit; 0: estimate without images.",
    ),
    methods("--refit", is_flag=True, help="Fit the remaining weights of every network on these images."),
    methods("--threshold", type=float, default=1e-3, show_default=True, help="For implicit: |γ| below this is dead."),
    methods("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of random and of fine-tuning."),
    tuning(
        "--finetune",
        "iterations",
        type=click.IntRange(0),
        default=0,
        help="Iterations for every slim network; 0: none.",
    ),
    tuning("--optimiser", type=click.Choice(("sgd", "adam")), default="sgd", show_default=True, help="The optimiser."),
    tuning("--lr", type=float, help="Constant learning rate.  [default: 1e-3, as Li et al.]"),
    tuning("--cosine", is_flag=True, help="Let the rate fall to 0 along a cosine instead."),
    *step_options(tuning),
    tuning("--tests", type=click.IntRange(1), default=4, show_default=True, help="Evaluations during the fine-tuning."),
    judging("--batch", type=click.IntRange(1), default=1, show_default=True, help="Batch size for latency."),
    judging("--threads", type=click.IntRange(1), help="Number of threads.  [default: every core]"),
    judging(
        "--device",
        metavar="DEVICE",
        help="For everything but latency: cpu, cuda or cuda:N.  [default: a GPU if there is one]",
    ),
    judging(
        "--seconds",
        type=click.FloatRange(0),
        default=2.0,
        show_default=True,
        help="Time for each latency; 0: do not measure.",
    ),
)


ALIKE = ("l2", "batch_size", "flips", "crop", "seed")
"""The settings that training with L1 on γ shares with fine-tuning."""
L1 = 1e-4


@dataclass(frozen=True)
class Contest:
    """The options of a comparison."""

    methods: tuple[str, ...]
    budgets: tuple[float, ...]
    unit: str
    engines: tuple[str, ...]
    sparsify: int
    l1: float | None
    recalibrate: bool
    measure_on: int
    refit: bool
    threshold: float
    seed: int
    iterations: int
    optimiser: str
    lr: float | None
    cosine: bool
    l2: float
    batch_size: int
    flips: bool
    crop: int
    tests: int
    batch: int
    threads: int | None
    device: str | None
    seconds: float

    def settings(self, arch: str, source: str) -> Settings:
        """The library's settings.

        Raises:
            UsageError: a method that there is not, a budget that is no share, or a number out of its range.
        """
        from slimnet.benchmark import usable_cores
        from slimnet.comparison import Settings
        from slimnet.methods import Budget

        return Settings(
            methods=self.methods,
            budgets=tuple(Budget(self.unit, left) for left in self.budgets),  # type: ignore[arg-type]
            engines=("slimnet", *self.engines),
            finetuning=self._recipe(arch, source) if self.iterations else None,
            evaluations=self.tests,
            sparsifying=self._sparsifying(arch, source),
            recalibrate=self.recalibrate,
            measure_on=self.measure_on if self.recalibrate else 0,
            refit=self.refit,
            threshold=self.threshold,
            seed=self.seed,
            batch=self.batch,
            threads=self.threads or usable_cores(),
            seconds=self.seconds,
        )

    def _recipe(self, arch: str, source: str) -> Recipe:
        from slimnet.training.finetune import retraining

        given: dict[str, Any] = {name: getattr(self, name) for name in ("optimiser", "cosine", *ALIKE)}
        return retraining(arch, source, self.iterations, **given, **({} if self.lr is None else {"lr": self.lr}))

    def _sparsifying(self, arch: str, source: str) -> Recipe | None:
        from slimnet.errors import UsageError
        from slimnet.training.finetune import sparsifying

        if not self.sparsify:
            if self.l1 is not None:
                raise UsageError("--l1 is for training before liu2017 chooses; give its iterations with --sparsify N")
            return None
        given = {name: getattr(self, name) for name in ALIKE}
        return sparsifying(arch, source, self.sparsify, L1 if self.l1 is None else self.l1, **given)


contest_options = as_one("contest", Contest, OPTIONS)
"""Add the options; the command gets them as one `contest`."""
