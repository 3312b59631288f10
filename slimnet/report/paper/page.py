"""The report of a reproduction: the paper's tables and figures with our results next to them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimnet.report.drawing.svg import Drawing
from slimnet.report.paper import figures
from slimnet.report.paper.figures import Bar, Moved
from slimnet.report.paper.scalar_figures import draw_scalars
from slimnet.report.rendering import fill, marked, write_page
from slimnet.reproduction.catalogue import READINGS, Entry, Figure, Table, datasets, printed
from slimnet.reproduction.markdown import (
    Found,
    difference,
    falling,
    length,
    letter,
    machine_letters,
    number,
    outcome,
    spread_out,
)
from slimnet.reproduction.results import Result, environments, hardware
from slimnet.reproduction.scalars import ScalarFigure, claims
from slimnet.reproduction.scales import Scale, describe_scale
from slimnet.reproduction.trends import Verdict, verdicts
from slimnet.version import installed_version

CAPTIONS = {
    "history": "Distribution of the layer's γ (above) and β (below) over the training: stronger colour for more "
    "channels; those of dead channels are orange.",
    "universality": "One row for each layer: a histogram of its features by the share of the training images that they "
    "respond to, with more than a thousandth of the feature's largest response. Orange are features that respond to "
    "nothing, in per cent.",
}

EXPONENT = re.compile(r"(?<=\d)e-(?=\d)")

Histories = Mapping[str, Moved]
"""The histories of γ and β in the available runs, by the network's name."""


def write_paper_report(found: Found, histories: Histories, path: Path) -> Path:
    """Write the requested tables and figures as one self-contained HTML file.

    Raises:
        SlimnetError: it cannot be written there.
    """
    return write_page(render_paper(found, histories), path)


def render_paper(found: Found, histories: Histories) -> str:
    """The report as HTML text; all names are escaped."""
    known = [each for each in verdicts(found.results) if each.holds is not None]
    shown = printed(found.names)
    drawn = [each for each in shown if isinstance(each, Figure)]
    return fill(
        "paper.html.jinja",
        title="On Implicit Filter Level Sparsity in Convolutional Neural Networks",
        version=installed_version("slimnet"),
        headline="The paper, reproduced",
        sentences=sentences(known, found.scale),
        mark="" if found.scale == "full" else f" Ours are of the {found.scale} scale.",
        trends=[trend(each) for each in known],
        tables=[table(each, found.results) for each in shown if isinstance(each, Table)],
        figures=[{"name": each.name, "heading": heading(each), "caption": caption(each)} for each in drawn],
        simulated=[simulation(name, figure) for name, figure in found.simulations.items()],
        machines=[
            {"letter": letter(place), "rows": list(each.items())}
            for place, each in enumerate(environments(found.results.values()))
        ],
        drawings=drawings(found, histories),
    )


def sentences(found: Sequence[Verdict], scale: Scale) -> list[str]:
    """The summary of the page."""
    held = sum(bool(each.holds) for each in found)
    verb = "holds" if held == 1 else "hold"
    counted = [f"{held} of the {len(found)} tested trends of the paper {verb}."] if found else []
    return [*counted, describe_scale(scale)]


def heading(which: Table | Figure) -> str:
    """The heading of a table or figure: its name and its title."""
    return f"{which.source[0].upper()}{which.source[1:]}: {which.title}"


def caption(figure: Figure) -> str:
    """The caption of a figure."""
    return " ".join([CAPTIONS[figure.kind], *figure.notes])


def trend(verdict: Verdict) -> dict[str, Any]:
    """A claim as data for the template."""
    return {
        "claim": unbroken(verdict.claim),
        "why": unbroken(verdict.why),
        "outcome": outcome(verdict),
        "holds": verdict.holds,
        "ours": unbroken(falling(verdict)),
        "seeds": verdict.seeds,
        "paper": ", ".join(f"{value:g}" for value in verdict.paper),
    }


def unbroken(text: str) -> str:
    """The same text without line breaks within "1e-3", "36.5 ± 0.2" or "× 0.1"."""
    together = EXPONENT.sub("e\N{NON-BREAKING HYPHEN}", text).replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
    return together.replace("× ", "×\N{NO-BREAK SPACE}")


def table(which: Table, results: Mapping[str, Result]) -> dict[str, Any]:
    """A table as data for the template: a heading for each number, and the results of each network."""
    shown = which.readings
    machines = [hardware(each) for each in environments(results.values())]
    return {
        "name": which.name,
        "heading": heading(which),
        "readings": [READINGS[name] for name in shown],
        "notes": which.notes,
        "networks": [_network(entry, results.get(entry.name), shown, machines) for entry in which.entries],
    }


def _network(entry: Entry, result: Result | None, shown: Sequence[str], machines: Sequence[str]) -> dict[str, Any]:
    """A network of a table: its lines of numbers, the paper's first, and a description of our runs."""
    found = {"row": unbroken(entry.row), "data": datasets()[entry.data].title}
    paper = {"label": "paper", "numbers": [number(name, entry.paper.get(name)) for name in shown]}
    if result is None:
        return found | {"lines": [paper], "about": f"quoted from {entry.of}" if entry.of else "not run"}
    means = {name: result.mean(name) for name in READINGS}
    apart = {name: difference(means[name], value) for name, value in entry.paper.items()}
    ours = {
        "label": "ours" if result.scale == "full" else f"ours, {result.scale}",
        "numbers": [spread_out(result, name, means[name]) for name in shown],
    }
    differences = {"label": "difference", "numbers": [number(name, apart.get(name), signed=True) for name in shown]}
    count = f"{len(result.runs)} seed{'' if len(result.runs) == 1 else 's'}"
    about = f"{count} × {length(result)} on {machine_letters(result, machines)}"
    return found | {"lines": [paper, ours, differences], "about": about}


def simulation(name: str, figure: ScalarFigure) -> dict[str, Any]:
    """A simulated figure as data for the template."""
    stated = claims(figure) if {"adam", "sgd"} <= set(figure.optimisers) else ()
    outcomes = [f"{each.text}: {'holds' if each.holds else 'does not hold'}." for each in stated]
    return {
        "name": name,
        "heading": f"{figure.title}: the effect of each regulariser on a number under low gradients",
        "caption": " ".join(
            [
                "Lines are medians over the seeds, bands the middle eighty per cent of them; in full, with the "
                "trainer's own optimisers. The scale of the gradients is reconstructed.",
                *outcomes,
            ]
        ),
    }


def drawings(found: Found, histories: Histories) -> dict[str, Drawing]:
    """The figures with results, by name, each wide and narrow."""
    drawn = {name: draw_scalars(figure) for name, figure in found.simulations.items()}
    for each in printed(found.names):
        known = [entry for entry in each.entries if entry.name in found.results]
        if isinstance(each, Table):
            if known:
                drawn[each.name] = figures.comparison(each.name, bars(each, found.results))
        elif each.kind == "history":
            moved = [histories[entry.name] for entry in each.entries if entry.name in histories]
            if moved:
                drawn[each.name] = figures.history(each.name, moved)
        elif known:
            layers = {entry.row: found.results[entry.name].runs[0].layers for entry in known}
            drawn[each.name] = figures.universality(each.name, layers)
    return marked(drawn)


def bars(which: Table, results: Mapping[str, Result]) -> dict[str, list[Bar]]:
    """Sparsity by γ, the paper's and ours, by data set; each has every row, at the same height."""
    known = {(entry.data, entry.row): entry for entry in which.entries}
    data, rows = ({key[place]: None for key in known} for place in (0, 1))
    return {datasets()[name].title: [_bar(row, known.get((name, row)), results) for row in rows] for name in data}


def _bar(label: str, entry: Entry | None, results: Mapping[str, Result]) -> Bar:
    """A row on a data set, empty if the paper has no such network."""
    if entry is None:
        return Bar(label, None, None)
    result = results.get(entry.name)
    mine = result.mean("gamma") if result else None
    spread = result.spread("gamma") if result else None
    return Bar(label, _one(entry.paper.get("gamma")), _one(mine), spread or 0.0)


def _one(value: Any) -> float | None:
    return None if value is None else float(value)
