"""The paper's tables with our results next to them, as Markdown and as JSON."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slimnet.printable import printable
from slimnet.reproduction import results as kept
from slimnet.reproduction import scalar_text
from slimnet.reproduction.catalogue import READINGS, Entry, Table, Value, datasets, printed
from slimnet.reproduction.results import Result
from slimnet.reproduction.scalars import ScalarFigure
from slimnet.reproduction.scales import Scale, describe_scale, precision_of
from slimnet.reproduction.trends import Verdict, verdicts

NOTHING = "–"
LOSSES = ("train_loss", "test_loss")
COUNTS = ("features_pruned",)


@dataclass(frozen=True)
class Found:
    """A report of the paper: the selected tables and figures, the scale, and the results."""

    names: tuple[str, ...]
    scale: Scale
    results: Mapping[str, Result]
    simulations: Mapping[str, ScalarFigure]


def document(found: Found) -> dict[str, Any]:
    """The report as JSON data: each printed number, ours, and the difference."""
    return {
        "scale": found.scale,
        "about": describe_scale(found.scale),
        "cells": [
            _cell(entry, found.results.get(entry.name)) for each in printed(found.names) for entry in each.entries
        ],
        "trends": [dataclasses.asdict(verdict) for verdict in verdicts(found.results)],
        "simulated": {name: dataclasses.asdict(figure) for name, figure in found.simulations.items()},
        "machines": [dict(each) for each in kept.environments(found.results.values())],
    }


def _cell(entry: Entry, result: Result | None) -> dict[str, Any]:
    found: dict[str, Any] = {"cell": entry.name, "table": entry.table, "row": entry.row, "data": entry.data}
    if result is None:
        return found | {"paper": dict(entry.paper), "ours": None}
    ours = {name: result.mean(name) for name in READINGS}
    differences = {name: difference(ours[name], value) for name, value in entry.paper.items()}
    return found | {
        "scale": result.scale,
        "paper": dict(entry.paper),
        "ours": ours,
        "difference": differences,
        "spread": {name: result.spread(name) for name in READINGS},
        "seeds": list(result.seeds),
        "iterations": result.iterations,
        **dataclasses.asdict(result.variation),
        "macs_left": macs_left(result),
        "hardware": sorted({kept.hardware(run.environment) for run in result.runs}),
    }


def difference(ours: Value, paper: Value) -> Value | None:
    """The difference (ours − paper), for each layer if both have the same number of layers, otherwise None."""
    if isinstance(ours, tuple) or isinstance(paper, tuple):
        if not (isinstance(ours, tuple) and isinstance(paper, tuple) and len(ours) == len(paper)):
            return None
        return tuple(mine - theirs for mine, theirs in zip(ours, paper, strict=True))
    return ours - paper


def macs_left(result: Result) -> float:
    """The multiply-accumulates after pruning, in per cent of those before: the mean over the runs."""
    return sum(100 * run.macs[1] / run.macs[0] for run in result.runs) / len(result.runs)


def markdown(found: Found) -> str:
    """The selected tables in order, followed by the trends and the machines."""
    machines = [kept.hardware(each) for each in kept.environments(found.results.values())]
    parts = [describe_scale(found.scale)]
    for shown in printed(found.names):
        if isinstance(shown, Table):
            parts.append(table(shown, found.results, machines))
        else:
            parts.append(f"### {shown.name}: {shown.title}\n\nDrawn in the report. {' '.join(shown.notes)}")
    parts += [f"### {escaped(name)}\n\n{scalar_text.markdown(figure)}" for name, figure in found.simulations.items()]
    known = [line(each, found.scale) for each in verdicts(found.results) if each.holds is not None]
    if known:
        parts.append("### Trends\n\n" + "\n".join(f"- {each}" for each in known))
    if machines:
        parts.append("\n".join(f"{letter(number)}: {escaped(each)}" for number, each in enumerate(machines)))
    return "\n\n".join(parts)


def line(verdict: Verdict, scale: Scale) -> str:
    """A trend in one line."""
    paper = ", ".join(f"{value:g}" for value in verdict.paper)
    printed = f"; the paper's {paper}" if paper else ""
    why = f"; {verdict.why}" if verdict.why else ""
    more = " or more" if verdict.seeds == 1 and any(verdict.spreads) else ""
    seeds = f"{scale}, {verdict.seeds} seed{'' if verdict.seeds == 1 else 's'}{more}"
    return f"{verdict.claim}: **{outcome(verdict)}** ({seeds}: {falling(verdict)} %{printed}){why}"


def outcome(verdict: Verdict) -> str:
    """Whether a trend holds, in a few words."""
    held = "holds" if verdict.holds else "does not hold"
    return f"{held}, within the seeds' spread" if verdict.close else held


def falling(verdict: Verdict) -> str:
    """The values that are claimed to decrease, each with the spread of its seeds."""
    spreads = [f" ± {spread:.1f}" if spread or verdict.seeds > 1 else "" for spread in verdict.spreads]
    return ", ".join(f"{value:.1f}{spread}" for value, spread in zip(verdict.values, spreads, strict=True))


def table(which: Table, results: Mapping[str, Result], machines: Sequence[str]) -> str:
    """One table: paper, ours, difference, seeds, iterations, hardware; numbers are in the order of its heading."""
    shown = which.readings
    lines = [
        f"### {which.name}: {which.title}",
        "",
        f"In this order: {'; '.join(READINGS[name] for name in shown)}.",
        "",
        "| row | data | paper | ours | difference | MACs left | seeds | iterations | hardware |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in which.entries:
        cells = [entry.row, datasets()[entry.data].title, values(entry.paper, shown)]
        found = ours(entry, results.get(entry.name), shown, machines)
        lines.append("| " + " | ".join(map(escaped, cells + found)) + " |")
    lines += ["", *(f"- {note}" for note in which.notes)]
    return "\n".join(lines)


def escaped(cell: str) -> str:
    """A cell of a table, with characters escaped that would end the cell or begin HTML."""
    return printable(cell).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def ours(entry: Entry, result: Result | None, shown: Sequence[str], machines: Sequence[str]) -> list[str]:
    """The columns with our results."""
    if result is None:
        why = f"quoted from {entry.of}" if entry.of else "not run"
        return [why, *[NOTHING] * 5]
    means = {name: result.mean(name) for name in READINGS}
    shown_values = " / ".join(spread_out(result, name, means[name]) for name in shown)
    marked = shown_values if result.scale == "full" else f"{result.scale}: {shown_values}"
    apart = {name: difference(means[name], value) for name, value in entry.paper.items()}
    return [
        marked,
        values(apart, shown, signed=True),
        f"{macs_left(result):.0f} %",
        str(len(result.runs)),
        length(result),
        machine_letters(result, machines),
    ]


def length(result: Result) -> str:
    """The number of iterations of a result's runs, and how they differ from the paper's recipe at this scale."""
    return ", ".join([f"{result.iterations:,}", *result.variation.marks(precision_of(result.scale))])


def machine_letters(result: Result, machines: Sequence[str]) -> str:
    """The letters of the machines of a result's runs."""
    known = {name: letter(place) for place, name in enumerate(machines)}
    return ", ".join(sorted({known.get(kept.hardware(run.environment), NOTHING) for run in result.runs}))


def values(found: Mapping[str, Value | None], shown: Sequence[str], *, signed: bool = False) -> str:
    """Numbers in the order of the columns, separated by slashes."""
    return " / ".join(number(name, found.get(name), signed=signed) for name in shown)


def spread_out(result: Result, name: str, mean: Value) -> str:
    """The mean of a reading; for sparsity by γ, to which the trends refer, also the spread of the seeds."""
    spread = result.spread(name) if name == "gamma" else None
    return number(name, mean) if spread is None else f"{number(name, mean)} ± {number(name, spread)}"


def number(name: str, value: Value | None, *, signed: bool = False) -> str:
    """A formatted reading, with as many digits as the paper prints."""
    if value is None:
        return NOTHING
    if isinstance(value, tuple):
        return " ".join(number(name, each, signed=signed) for each in value)
    digits = 2 if name in LOSSES else 0 if name in (*COUNTS, "layers") else 1
    rounded = round(value, digits) or 0.0
    return f"{rounded:{'+' if signed else ''}.{digits}f}"


def letter(place: int) -> str:
    """A, B, C, ... for machines."""
    return chr(ord("A") + place)
