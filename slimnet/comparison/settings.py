"""The settings of a comparison: methods, budgets, and how every slim network is evaluated."""

from dataclasses import dataclass, field
from typing import Any

from slimnet.benchmark import usable_cores
from slimnet.comparison.rival import UNITS as RIVAL_UNITS
from slimnet.errors import UsageError, check_name
from slimnet.methods import Budget
from slimnet.methods.batchnorm_measure import ENOUGH
from slimnet.methods.scores import named
from slimnet.planning.dead_channels import check_threshold
from slimnet.training import Recipe
from slimnet.training.finetune import EVALUATIONS

OURS = "implicit"
"""The method that needs no budget: it removes channels that are dead by the threshold, exactly."""

ENGINE, RIVAL = "slimnet", "torch-pruning"
ENGINES = (ENGINE, RIVAL)
"""What removes the channels that a method chooses; slimnet always does, others beside it."""

SPARSE = "liu2017"
"""The method whose paper trains with L1 on γ before channels are chosen."""


@dataclass(frozen=True)
class Cell:
    """One slim network: a method at a budget by an engine, or the exact removal without a budget."""

    method: str
    budget: Budget | None
    engine: str = ENGINE

    @property
    def key(self) -> str:
        """Its name in a folder."""
        name = self.method if self.engine == ENGINE else f"{self.method}-{self.engine}"
        return f"{name}-{self.budget.unit}-{self.budget.left:g}" if self.budget else f"{name}-exact"

    def __str__(self) -> str:
        name = labelled(self.method, self.engine)
        return f"{name}, {self.budget.left:g} of the {self.budget.unit}" if self.budget else name


def labelled(method: str, engine: str) -> str:
    """The name of a row: the method, and the engine if it is not slimnet."""
    return method if engine == ENGINE else f"{method} by {engine}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Methods and budgets, and the conditions that all of them share.

    Attributes:
        methods: names in `slimnet.methods.METHODS`; "implicit" also has a row without a budget.
        budgets: the budgets, each for every method.
        rival_methods: the methods whose choice other engines than slimnet remove as well; all if empty.
        engines: what removes the chosen channels, names in `ENGINES`; "slimnet" is always one of them.
        finetuning: the recipe of the fine-tuning of each slim network; None without.
        evaluations: the number of tests during fine-tuning.
        sparsifying: the recipe by which a copy of the network is trained with L1 on γ before "liu2017" chooses channels
            in it, as in its paper; None without.
        recalibrate: whether BatchNorm statistics are re-estimated, see `methods.remove_selected`; the published methods
            do not include this.
        measure_on: the number of training images, without labels, on which they are measured; 0: estimated.
        refit: whether the remaining weights are fitted on these images instead.
        threshold: |γ| below this is dead, for "implicit".
        seed: the seed of "random".
        batch: the batch size of latency measurements.
        threads: the threads of training, testing and latency measurements.
        seconds: the time of each latency measurement; 0 for none.

    Raises:
        UsageError: a method is unknown, there is nothing to compare, or a number is out of its range.
    """

    methods: tuple[str, ...]
    budgets: tuple[Budget, ...] = ()
    engines: tuple[str, ...] = (ENGINE,)
    rival_methods: tuple[str, ...] = ()
    finetuning: Recipe | None = None
    evaluations: int = EVALUATIONS
    sparsifying: Recipe | None = None
    recalibrate: bool = True
    measure_on: int = ENOUGH
    refit: bool = False
    threshold: float = 1e-3
    seed: int = 0
    batch: int = 1
    threads: int = field(default_factory=usable_cores)
    seconds: float = 2.0

    def __post_init__(self) -> None:
        for method in self.methods:
            named(method)
        check_threshold(self.threshold)
        self._check_engines()
        if not self.cells():
            raise UsageError(
                f"{', '.join(self.methods) or 'no method'} without a budget is nothing to compare: "
                "give budgets, such as 0.5 (half of the MACs)"
            )
        if self.sparsifying is not None and (SPARSE not in self.methods or not self.sparsifying.l1_gamma):
            raise UsageError(f"training with L1 on γ is for {SPARSE}: add it to the methods, with a λ above 0")
        if self.refit and not (self.recalibrate and self.measure_on):
            raise UsageError("weights are fitted on images: refit needs recalibrate, and measure_on above 0")
        if self.evaluations < 1 or self.batch < 1 or self.threads < 1 or not self.seconds >= 0:
            raise UsageError(
                f"{self.evaluations} evaluations, batch {self.batch}, {self.threads} threads and {self.seconds} s "
                "must be at least 1, and the seconds at least 0"
            )

    def _check_engines(self) -> None:
        """Refuse engines that there are not, and what another engine than slimnet cannot do."""
        for engine in self.engines:
            check_name("engine", engine, ENGINES)
        if RIVAL not in self.engines:
            return
        units = sorted({budget.unit for budget in self.budgets} - set(RIVAL_UNITS))
        if units or not self.budgets:
            asked = f"not of {units[0]}" if units else "and there is none"
            raise UsageError(f"{RIVAL} is brought to budgets of {' or '.join(RIVAL_UNITS)}, {asked}; give such budgets")

    def cells(self) -> tuple[Cell, ...]:
        """Every slim network, in the order of creation; equal ones once."""
        exact = [Cell(OURS, None)] if OURS in self.methods else []
        ranked = [
            Cell(method, budget, engine)
            for budget in self.budgets
            for method in self.methods
            for engine in dict.fromkeys([ENGINE, *self.engines])
            if engine == ENGINE or method in (self.rival_methods or self.methods)
        ]
        return tuple(dict.fromkeys([*exact, *ranked]))

    def conditions(self) -> dict[str, Any]:
        """The conditions that all trials share, as JSON data."""
        return {
            "finetuning": self.finetuning and self.finetuning.to_json(),
            "evaluations": self.evaluations,
            "sparsifying": self.sparsifying and self.sparsifying.to_json(),
            "recalibrate": self.recalibrate,
            "measure_on": self.measure_on,
            **({"refit": True} if self.refit else {}),
            "threshold": self.threshold,
            "seed": self.seed,
            "batch": self.batch,
            "threads": self.threads,
            "seconds": self.seconds,
        }
