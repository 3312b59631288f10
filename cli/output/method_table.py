"""The table of a comparison of methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text
from slimnet_cli.output import terminal

if TYPE_CHECKING:
    from slimnet.benchmark import Latency
    from slimnet.comparison import Failure, Outcome, Results

NOTHING = "–"


def show(console: Console, results: Results) -> None:
    """The table, and the notes needed to read it."""
    tuned = any(outcome.course for outcome in results.outcomes)
    timed = next((outcome.latency for outcome in results.outcomes if outcome.latency), None)
    headings = ["method", "channels removed", "MACs removed", "error"]
    headings += ["fine-tuned"] if tuned else []
    headings += [f"{timed.runtime}, batch {timed.batch}"] if timed else []
    rows = [_row(results, outcome, tuned=tuned, timed=timed is not None) for outcome in results.outcomes]
    rows += [[_failed(failure), *[NOTHING] * (len(headings) - 1)] for failure in results.failures]
    last = len(headings) - (1 if timed else 0)
    console.print(terminal.table(headings, [_dense(results, len(headings)), *rows], right=range(1, last)))
    console.print("\n" + "\n".join(_notes(results, tuned=tuned, timed=timed)), style="dim", soft_wrap=True)


def _dense(results: Results, columns: int) -> list[str]:
    size = results.dense.size
    row = ["dense", f"of {size.channels:,}", f"of {_amount(size.macs)}", _per_cent(results.dense.error)]
    return row + [""] * (columns - len(row))


def _row(results: Results, outcome: Outcome, *, tuned: bool, timed: bool) -> list[str | Text]:
    before, after = results.dense.size, outcome.size
    row: list[str | Text] = [
        _name(outcome),
        f"{before.channels - after.channels:,}",
        _percent(1 - after.macs / before.macs),
        _per_cent(outcome.error),
    ]
    if tuned:
        row.append(_course(outcome))
    if timed:
        row.append(str(outcome.speedup) if outcome.speedup else NOTHING)
    return row


def _failed(failure: Failure) -> Text:
    return Text(f"{failure.label}, {failure.budget.left:.3g} of the {failure.budget.unit}", style="yellow")


def _name(outcome: Outcome) -> Text:
    if outcome.budget is None:
        return Text(f"{outcome.method}, exact", style="bold")
    trained = f" after {outcome.sparsified.iteration:,} iterations of L1" if outcome.sparsified else ""
    return Text(f"{outcome.label}{trained}, {outcome.budget.left:.3g} of the {outcome.budget.unit}")


def _course(outcome: Outcome) -> str:
    """The error at the end, and the lowest one during fine-tuning in brackets."""
    if outcome.last is None or outcome.best is None:
        return NOTHING
    return f"{_per_cent(outcome.last.error)} ({_per_cent(outcome.best.error)})"


def _notes(results: Results, *, tuned: bool, timed: Latency | None) -> list[str]:
    where, recipe = results.environment, results.finetuning
    notes = [f"error on {results.images:,} test images of {results.data}, right after the removal"]
    exact = next((each for each in results.outcomes if each.budget is None), None)
    if exact is not None:
        notes.append(
            f"exact: only dead channels were removed; outputs changed by {exact.difference:.1e} of the largest"
        )
    notes += _of_engines(results)
    if not results.recalibrated:
        notes.append("removed as in the papers: BatchNorm statistics are not re-estimated")
    elif results.refitted:
        notes.append(f"remaining weights: fitted on {results.measured_on:,} training images, without labels")
    elif results.measured_on:
        notes.append(f"BatchNorm statistics: measured on {results.measured_on:,} training images, without labels")
    trained, sparse = results.sparsifying, next((each.sparsified for each in results.outcomes if each.sparsified), None)
    if trained is not None and sparse is not None:
        notes.append(
            f"liu2017: with {sparse.iteration:,} iterations of L1 training before selection, λ {trained.l1_gamma:g}, "
            f"{trained.optimiser} from {trained.lr:g} along a cosine, after which the error of the dense network was "
            f"{_per_cent(sparse.error)}; no other method had such training"
        )
    if tuned and recipe is not None:
        notes.append(
            f"fine-tuned: {recipe.iterations:,} iterations of {recipe.optimiser} at {recipe.lr:g}"
            f"{' along a cosine' if recipe.cosine else ''}, "
            f"{recipe.batch_size} images each; error at the end (lowest error during it)"
        )
    if timed is not None:
        runtime = f"{timed.runtime} {where.software.get(timed.runtime, '')}".rstrip()
        notes.append(f"{where.cpu}, {runtime}, interleaved with the dense network; 95 % interval of the ratio")
    return notes


def _of_engines(results: Results) -> list[str]:
    """What another engine than slimnet did, and what it broke."""
    from slimnet.comparison.settings import ENGINE

    engines = [each.engine for each in results.outcomes] + [each.engine for each in results.failures]
    rivals = [engine for engine in engines if engine != ENGINE]
    if not rivals:
        return []
    found = [f"{rivals[0]}: the same scores and fine-tuning, its own choice of groups and its own surgery"]
    broken = [(each.label, each.budget, each.flaw) for each in results.outcomes if each.flaw]
    broken += [(each.label, each.budget, each.reason) for each in results.failures]
    for label, budget, reason in broken:
        found.append(f"{label}{f', {budget.left:.3g} of the {budget.unit}' if budget else ''}: {reason}")
    return found


def _amount(number: float) -> str:
    from slimnet.report.formatting import amount

    return amount(number)


def _percent(share: float) -> str:
    from slimnet.report.formatting import percent

    return percent(share, 1)


def _per_cent(error: float) -> str:
    """An error in per cent; 0 is shown as such."""
    return f"{100 * error:.2f}\u202f%"
