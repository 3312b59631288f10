"""Widths chosen by measurement: the slim network that is fastest here, and never slower than the dense one."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from slimnet.modules.example_inputs import Inputs
from slimnet.planning.width_rounding import WHOLE, Rounding
from slimnet.surgery.cut_history import revise_cut
from slimnet.surgery.plan import SurgeryPlan
from slimnet.surgery.plan_data import WidthTrial

if TYPE_CHECKING:
    from slimnet.benchmark.runtimes.runtime import Runtime

CANDIDATES = (Rounding(), Rounding(4), Rounding(8), Rounding(16), Rounding(32))
"""How widths are rounded on trial, beside the dense network: onnxruntime likes fours, vector units eights and more.

One for the whole network: a multiple for each layer of its own would bring 2.4 % on VGG-16 at most, and 0.5 to 1.3 %
on four other networks (the profiles in benchmarks/README.md); put together for three of them, it brought nothing.
"""

DENSE = "dense"
MAX_SLOWDOWN = 1.02
"""How much longer than the fastest a network may take that is chosen for its fewer MACs, within the noise."""

Made = tuple[nn.Module, SurgeryPlan]
Samples = Sequence[Sequence[float]]
"""Milliseconds: a row for each network, a column for each round in which all took their turn."""


@dataclass(frozen=True)
class WidthSearch:
    """How the widths are chosen: on which runtime, at which batch size, on how many threads.

    With `runtime` None it is the one that slim networks are made for, with `threads` None on every core.

    `seconds` is the time of the interleaved measurement of all candidates, which is repeated if the fastest is hardly
    faster than dense. `progress` is called with the number of candidates that are ready, the total, and the last one.
    `timer` times networks (default: by the clock of this machine).
    """

    runtime: str | None = None
    batch: int = 1
    threads: int | None = None
    seconds: float = 12.0
    progress: Callable[[int, int, str], None] | None = None
    timer: "Timer | None" = None


Timer = Callable[[Iterable[tuple[str, nn.Module]], Inputs, WidthSearch], Samples]


@dataclass(frozen=True)
class Candidate:
    """One way to round the widths, and the plan it makes."""

    rounding: Rounding
    plan: SurgeryPlan

    @property
    def name(self) -> str:
        """What people call it."""
        return DENSE if self.rounding.multiple >= WHOLE else str(self.rounding)


def choose(model: nn.Module, inputs: Inputs, make: Callable[[Rounding], Made], auto: WidthSearch) -> Made:
    """The slim network with the fewest MACs of those not measurably slower than the fastest, and its plan.

    `make` makes a slim network for one rounding. The dense network is one of the candidates: where nothing is faster
    the plan removes nothing. All of them are timed in turn; the plan holds what was measured. One that is not surely
    faster than the dense network is timed against it once more, since of several the luckiest is taken. The chosen one
    is made again rather than all of them kept in memory.

    Raises:
        ExportError, UsageError: the runtime cannot run the network.
    """
    candidates: list[Candidate] = []
    auto = dataclasses.replace(auto, runtime=runtime_of(auto).name)
    timer = auto.timer or timed
    samples = quickest(timer(networks(model, make, candidates, auto.progress), inputs, auto))
    trials = [trial(each, row, samples[0], auto) for each, row in zip(candidates, samples, strict=True)]
    number = fewest_macs_of_the_fastest([each.plan.macs_after for each in candidates], samples)
    chosen = candidates[number]
    narrow, plan = make(chosen.rounding)
    if number and trials[number].low <= 1.0:
        again = f"{chosen.name}, once more"
        if auto.progress is not None:
            auto.progress(1 + len(CANDIDATES), 1 + len(CANDIDATES), again)
        before, after = quickest(timer([(DENSE, model), (chosen.name, narrow)], inputs, auto))
        trials.append(dataclasses.replace(trial(chosen, after, before, auto), rounding=again))
        if trials[-1].high < 1.0:
            chosen = candidates[0]
            narrow, plan = make(chosen.rounding)
    rounding = f"{chosen.name}, the fastest of {len(candidates)} on {auto.runtime}"
    return narrow, revise_cut(narrow, plan, dataclasses.replace(plan, rounding=rounding, trials=tuple(trials)))


def networks(
    model: nn.Module,
    make: Callable[[Rounding], Made],
    candidates: list[Candidate],
    progress: Callable[[int, int, str], None] | None,
) -> Iterator[tuple[str, nn.Module]]:
    """Yield the dense network and every slim one that differs from those before it, noting each in `candidates`."""
    total = 1 + len(CANDIDATES)
    for number, rounding in enumerate((Rounding(WHOLE), *CANDIDATES), 1):
        narrow, plan = make(rounding)
        candidate = Candidate(rounding, plan)
        if progress is not None:
            progress(number, total, candidate.name)
        if not any(same_plan(plan, other.plan) for other in candidates):
            candidates.append(candidate)
            yield candidate.name, model if candidate.name == DENSE else narrow


def same_plan(plan: SurgeryPlan, other: SurgeryPlan) -> bool:
    """Whether two plans make the same network."""
    return (plan.cuts, plan.groups, plan.attributes) == (other.cuts, other.groups, other.attributes)


def fewest_macs_of_the_fastest(macs: Sequence[int], samples: Samples) -> int:
    """Which network to take; only one that is measurably faster may cost more MACs than another."""
    import numpy as np

    from slimnet.benchmark.intervals import ratio_interval

    medians = [float(np.median(row)) for row in samples]
    best = min(range(len(medians)), key=lambda number: medians[number])
    near = [
        number
        for number, median in enumerate(medians)
        if median <= MAX_SLOWDOWN * medians[best] and ratio_interval(samples[best], samples[number]).holds_one
    ]
    return min(near, key=lambda number: (macs[number], medians[number]))


def quickest(samples: Samples) -> Samples:
    """The least of neighbouring rounds, as few as a latency has at least: other programs only ever add to a time.

    On a busy machine most rounds are several times too long, and their median says little of a hundredth or a fifth.
    """
    import numpy as np

    from slimnet.benchmark.turns import FEWEST_ROUNDS

    table = np.array(samples)
    together = max(1, table.shape[1] // FEWEST_ROUNDS)
    whole = table.shape[1] // together * together
    least: list[list[float]] = table[:, :whole].reshape(len(table), -1, together).min(axis=2).tolist()
    return least


def trial(candidate: Candidate, row: Sequence[float], dense: Sequence[float], auto: WidthSearch) -> WidthTrial:
    """The measurement of one candidate."""
    import numpy as np

    from slimnet.benchmark.intervals import ratio_interval

    speedup = ratio_interval(dense, row)
    return WidthTrial(
        rounding=candidate.name,
        runtime=runtime_of(auto).name,
        batch=auto.batch,
        threads=threads_of(auto),
        macs=candidate.plan.macs_after,
        median_ms=float(np.median(row)),
        low=speedup.low,
        high=speedup.high,
    )


def runtime_of(auto: WidthSearch) -> "Runtime":
    """The runtime that is measured on.

    Raises:
        UsageError: there is none of that name.
    """
    from slimnet.benchmark.runtimes.table import DEPLOYED, find_runtime

    return find_runtime(auto.runtime or DEPLOYED)


def threads_of(auto: WidthSearch) -> int:
    """The number of threads that is measured with."""
    from slimnet.benchmark.environment import usable_cores

    return auto.threads or usable_cores()


def timed(named: Iterable[tuple[str, nn.Module]], inputs: Inputs, auto: WidthSearch) -> Samples:
    """Time networks in turn on this machine's CPU; where the runtime takes files, one at a time is held as a module.

    Raises:
        ExportError, UsageError: the runtime does not run one of them.
    """
    from slimnet.benchmark import Contender, Settings, measure
    from slimnet.benchmark.contender import in_form

    runtime = runtime_of(auto)
    settings = Settings((auto.batch,), threads_of(auto), auto.seconds, runtimes=(runtime.name,))
    on_cpu = inputs.map(lambda tensor: tensor.detach().cpu())
    with tempfile.TemporaryDirectory() as folder:
        contenders = []
        for name, model in named:
            contender = in_form(Contender(name, model), runtime.needs, inputs, Path(folder))
            contenders.append(contender if runtime.needs == "module" else dataclasses.replace(contender, model=None))
        if len(contenders) < 2:
            return [[1.0]]
        (latency,) = measure(contenders, on_cpu, settings)
    return latency.samples_ms
