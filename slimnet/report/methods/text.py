"""A comparison of methods of choosing channels as text, rows and figures."""

from dataclasses import dataclass

from slimnet.benchmark import Interval
from slimnet.comparison import Outcome, Results
from slimnet.comparison.settings import ENGINE
from slimnet.report import formatting
from slimnet.report.drawing.svg import Drawing
from slimnet.report.drawing.tradeoff import Mark, milliseconds, per_cent, tradeoff

UNITS = {"macs": "multiply-accumulates", "params": "parameters", "latency": "latency"}
SHORT_UNITS = UNITS | {"macs": "MACs"}
"""As they stand in tables."""


@dataclass(frozen=True)
class MethodRow:
    """One slim network: its method, its removed channels, and its results; empty if not measured."""

    method: str
    budget: str
    channels: str
    macs: str
    error: str
    tuned: str
    speedup: Interval | None


def headline(results: Results) -> str:
    """The headline of a comparison."""
    methods = list(dict.fromkeys(outcome.method for outcome in results.outcomes))
    return f"{len(methods)} way{'s' if len(methods) != 1 else ''} to make it smaller"


def sentences(results: Results) -> list[str]:
    """The exact removal, and at each budget the methods with the lowest and the highest error."""
    found = [f"The dense network has an error of {error(results.dense.error)} on {results.images:,} test images."]
    found += [_exact(results, outcome) for outcome in results.outcomes if outcome.budget is None]
    for budget in dict.fromkeys(outcome.budget for outcome in results.outcomes if outcome.budget is not None):
        rivals = sorted((each for each in results.outcomes if each.budget == budget), key=final)
        if len(rivals) > 1:
            best, worst = rivals[0], rivals[-1]
            found.append(
                f"At {formatting.percent(budget.left)} of the {UNITS[budget.unit]}, {best.label} has the lowest error "
                f"({error(final(best))}) and {worst.label} the highest ({error(final(worst))})."
            )
    return found


def _exact(results: Results, outcome: Outcome) -> str:
    removed = formatting.percent(1 - results.left(outcome), 1)
    return (
        f"Removing only its dead channels, which is exact, saves {removed} of its multiply-accumulates; "
        f"the error is then {error(outcome.error)}."
    )


def final(outcome: Outcome) -> float:
    """The error, 0..1, at the end of the fine-tuning, or after the removal without fine-tuning."""
    return outcome.last.error if outcome.last is not None else outcome.error


def error(share: float) -> str:
    """An error in per cent; 0 is shown as such."""
    return f"{100 * share:.2f}{formatting.SPACE}%"


def method_rows(results: Results) -> list[MethodRow]:
    """A row for each slim network, in the order of the results."""
    before = results.dense.size
    return [
        MethodRow(
            method=outcome.label,
            budget=f"{formatting.percent(outcome.budget.left)} of {SHORT_UNITS[outcome.budget.unit]}"
            if outcome.budget
            else "exact",
            channels=f"{before.channels - outcome.size.channels:,} of {before.channels:,}",
            macs=formatting.percent(1 - results.left(outcome), 1),
            error=error(outcome.error),
            tuned=error(outcome.last.error) if outcome.last is not None else "",
            speedup=outcome.speedup,
        )
        for outcome in results.outcomes
    ]


def removal_note(results: Results) -> str:
    """What removed the channels, what that broke, and what was done about BatchNorm statistics and weights."""
    rivals = {each.engine for each in results.outcomes} | {each.engine for each in results.failures}
    rivals.discard(ENGINE)
    surgery = "All channels were removed by the same surgery."
    if rivals:
        surgery = f"{', '.join(sorted(rivals))} had the same scores, and its own choice of groups and surgery."
    return " ".join([surgery, *broken(results), batchnorm_note(results)])


def broken(results: Results) -> list[str]:
    """What another engine than slimnet broke, a sentence for each network."""
    flaws = [(outcome.label, outcome.budget, outcome.flaw) for outcome in results.outcomes if outcome.flaw]
    failures = [(failure.label, failure.budget, failure.reason) for failure in results.failures]
    return [
        f"{label}{f', {formatting.percent(budget.left)} of {SHORT_UNITS[budget.unit]}' if budget else ''}: {reason}."
        for label, budget, reason in (*flaws, *failures)
    ]


def batchnorm_note(results: Results) -> str:
    """The treatment of BatchNorm statistics and weights after the removal, in one sentence."""
    if results.refitted:
        return f"The remaining weights were fitted on {results.measured_on:,} training images, without labels."
    if not results.recalibrated:
        return "As in the papers, BatchNorm statistics were not re-estimated."
    if not results.measured_on:
        return "BatchNorm statistics were re-estimated without data."
    return f"BatchNorm statistics were measured on {results.measured_on:,} training images, without labels."


def tuning(results: Results) -> str:
    """The training before and after the removal, in words; empty if there was none."""
    recipe, before = results.finetuning, results.sparsifying
    found = []
    if before is not None:
        found.append(
            f"liu2017 chose after {before.iterations:,} iterations of training with L1 on γ (λ {before.l1_gamma:g}), "
            "which the other methods did not get."
        )
    if recipe is not None:
        found.append(
            f"Each was then trained for {recipe.iterations:,} iterations of {recipe.batch_size} images with "
            f"{recipe.optimiser} at {recipe.lr:g}{' along a cosine' if recipe.cosine else ''}; "
            "hollow marks are before, filled ones after."
        )
    return " ".join(found)


def method_drawings(results: Results) -> dict[str, Drawing]:
    """Error against MACs and, if it was measured, against latency, by name, each wide and narrow."""
    if not results.outcomes:
        return {}
    dense = Mark("dense", 1.0, results.dense.error)
    marks = [_mark(outcome, results.left(outcome), None) for outcome in results.outcomes]
    found = {"methods": tradeoff("methods", "Error against MACs", marks, dense, "multiply-accumulates left", per_cent)}
    timed = [outcome for outcome in results.outcomes if outcome.latency is not None]
    if timed and timed[0].latency is not None:
        reference = timed[0].latency
        found["methodtimes"] = tradeoff(
            "methodtimes",
            "Error against latency",
            [_timed(outcome, reference.median_ms(0)) for outcome in timed],
            Mark("dense", reference.median_ms(0), results.dense.error),
            f"milliseconds on {reference.label}",
            milliseconds,
        )
    return found


def _mark(outcome: Outcome, cost: float, interval: tuple[float, float] | None) -> Mark:
    name = outcome.label if outcome.budget is not None else f"{outcome.method}, exact"
    return Mark(name, cost, final(outcome), interval, outcome.error if outcome.last is not None else None)


def _timed(outcome: Outcome, reference: float) -> Mark:
    """A mark at the dense network's time divided by the speed-up, since measurements were interleaved."""
    speedup = outcome.speedup
    assert speedup is not None
    return _mark(outcome, reference / speedup.value, (reference / speedup.high, reference / speedup.low))
