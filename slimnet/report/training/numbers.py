"""The numbers of the figures of a training run."""

from collections.abc import Callable

from slimnet.report.drawing.numbers import (
    MOST_COLUMNS,
    NOTHING,
    Numbers,
    filled_columns,
    left_out,
    share,
    short,
    spaced,
)
from slimnet.report.formatting import amount
from slimnet.report.training.record import TrainingRecord
from slimnet.training import Progress


def reports_in_numbers(record: TrainingRecord) -> Numbers:
    """A row for each report, with the columns for which one of them has a value."""
    iterations, times = record.pace
    pace = dict(zip(iterations.tolist(), times.tolist(), strict=True))
    columns: dict[str, Callable[[Progress], str]] = {
        "Loss": lambda each: short(each.loss),
        "Error": lambda each: share(1 - each.accuracy),
        "Validation error": lambda each: share(
            None if each.validation_accuracy is None else 1 - each.validation_accuracy
        ),
        "Dead": lambda each: share(each.sparsity),
        "MACs without them": lambda each: macs(each.macs_if_slimmed if each.macs else None),
        "MACs": lambda each: macs(each.macs_left or each.macs),
        "ms a step": lambda each: short(pace.get(each.iteration) if record.shrinks else None),
    }
    kept = filled_columns(columns, record.progress, NOTHING)
    rows = zip([f"{each:,}" for each in record.iterations], *kept.values(), strict=True)
    note = left_out(len(record.progress), "reports")
    return Numbers.of(("Iteration", *kept), spaced(list(rows)), note)


def macs(number: int | None) -> str:
    """Multiply-accumulates; a dash if they are not known."""
    return NOTHING if number is None else amount(number)


def layers_in_numbers(record: TrainingRecord) -> Numbers:
    """The filters of every layer, and those that are dead by γ and, if that was measured, by activation."""
    rows = []
    for norm, (size, alive) in record.alive.items():
        measured = record.analysed(norm)
        unknown = measured is None or measured.dead_by_activation is None
        quiet = NOTHING if measured is None or unknown else f"{measured.dead_by_activation:,}"
        rows.append((record.name_of(norm), f"{size:,}", f"{size - alive:,}", quiet))
    return Numbers.of(("Layer", "Filters", "Dead by γ", "by activation"), rows)


def deaths_in_numbers(record: TrainingRecord) -> Numbers:
    """A row for each layer: its dead share at a few points of the training."""
    places = spaced(range(len(record.kept_at)), MOST_COLUMNS)
    headings = [f"{record.kept_at[place]:,}" for place in places]
    rows = [
        (record.name_of(norm), *(share(float(dead[place])) for place in places)) for norm, dead in record.dead.items()
    ]
    note = left_out(len(record.kept_at), "points in time", MOST_COLUMNS)
    return Numbers.of(("Layer, at iteration", *headings), rows, note)
