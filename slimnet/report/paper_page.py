"""The report of a reproduction: the paper's tables and figures with ours beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from slimnet.benchmark.environment import installed_version
from slimnet.paper.catalogue import READINGS, Entry, Figure, Table, datasets, figures, tables
from slimnet.paper.markdown import Results, ours, values
from slimnet.paper.results import Result, environments
from slimnet.paper.scales import Scale, shortened
from slimnet.paper.trends import Verdict, verdicts
from slimnet.report import paper_figures
from slimnet.report.page import fill, marked, write_page
from slimnet.report.paper_figures import Bar, Moved

CAPTIONS = {
    "history": "How the layer's γ (above) and β (below) are distributed over the training: the stronger, the more "
    "channels; those of dead channels are orange.",
    "universality": "A row for each layer: the part of its features that responds to so many of the training images, "
    "with more than a thousandth of the feature's largest response. Orange is the part that responds to nothing, in "
    "per cent.",
}

Histories = Mapping[str, Moved]
"""How γ and β moved in the runs that are at hand, by the network's name."""


def write_paper_report(names: Sequence[str], results: Results, histories: Histories, scale: Scale, path: Path) -> Path:
    """Write the tables and figures that were asked for as one HTML file that needs nothing else.

    Raises:
        SlimnetError: it cannot be written there.
    """
    return write_page(render_paper(names, results, histories, scale), path)


def render_paper(names: Sequence[str], results: Results, histories: Histories, scale: Scale) -> str:
    """The report as HTML text; every name in it is escaped."""
    found = [each for each in verdicts(results) if each.holds is not None]
    printed = [tables()[name] for name in names if name in tables()]
    drawn = [figures()[name] for name in names if name in figures()]
    return fill(
        "paper.html.jinja",
        title="On Implicit Filter Level Sparsity in Convolutional Neural Networks",
        version=installed_version("slimnet"),
        headline="The paper, run again",
        sentences=sentences(found, scale),
        mark="" if scale == "full" else " Ours are of the small scale.",
        trends=[trend(each, scale) for each in found],
        tables=[table(each, results) for each in printed],
        figures=[{"name": each.name, "heading": heading(each), "caption": caption(each)} for each in drawn],
        machines=[list(each.items()) for each in environments(results.values())],
        drawings=drawings(printed, drawn, results, histories),
    )


def sentences(found: Sequence[Verdict], scale: Scale) -> list[str]:
    """What the page begins with."""
    held = sum(bool(each.holds) for each in found)
    counted = [f"{held} of the {len(found)} trends of the paper that were looked at hold."] if found else []
    return [*counted, shortened(scale)]


def heading(printed: Table | Figure) -> str:
    """The name of a table or figure with its subject."""
    return f"{printed.source[0].upper()}{printed.source[1:]}: {printed.title}"


def caption(figure: Figure) -> str:
    """What a figure shows."""
    return " ".join([CAPTIONS[figure.kind], *figure.notes])


def trend(verdict: Verdict, scale: Scale) -> dict[str, Any]:
    """A claim as the template takes it."""
    mark = "" if scale == "full" else f"{scale}: "
    return {
        "claim": verdict.claim,
        "holds": verdict.holds,
        "ours": mark + ", ".join(f"{value:.0f}" for value in verdict.values),
        "paper": ", ".join(f"{value:g}" for value in verdict.paper),
    }


def table(printed: Table, results: Results) -> dict[str, Any]:
    """A table as the template takes it."""
    shown = printed.readings
    return {
        "name": printed.name,
        "heading": heading(printed),
        "readings": [READINGS[name] for name in shown],
        "notes": printed.notes,
        "rows": [_row(entry, results.get(entry.name), shown) for entry in printed.entries],
    }


def _row(entry: Entry, result: Result | None, shown: Sequence[str]) -> list[str]:
    mine, apart, _, seeds, iterations, _ = ours(entry, result, shown, ())
    return [entry.row, datasets()[entry.data].title, values(entry.paper, shown), mine, apart, seeds, iterations]


def drawings(
    printed: Sequence[Table], drawn: Sequence[Figure], results: Results, histories: Histories
) -> dict[str, dict[str, Markup]]:
    """The figures that there are results for, by name, each wide and narrow."""
    found = {}
    for each in printed:
        if any(entry.name in results for entry in each.entries):
            found[each.name] = paper_figures.comparison(each.name, bars(each, results))
    for figure in drawn:
        known = [entry for entry in figure.entries if entry.name in (histories if figure.layer else results)]
        if known and figure.layer:
            found[figure.name] = paper_figures.history(figure.name, [histories[entry.name] for entry in known])
        elif known:
            layers = {f"{entry.row}": results[entry.name].runs[0].layers for entry in known}
            found[figure.name] = paper_figures.universality(figure.name, layers)
    return marked(found)


def bars(printed: Table, results: Results) -> dict[str, list[Bar]]:
    """Sparsity by γ, the paper's and ours, by data set."""
    found: dict[str, list[Bar]] = {}
    for entry in printed.entries:
        mine = results[entry.name].mean("gamma") if entry.name in results else None
        paper = entry.paper.get("gamma")
        found.setdefault(datasets()[entry.data].title, []).append(Bar(entry.row, _one(paper), _one(mine)))
    return found


def _one(value: Any) -> float | None:
    return None if value is None else float(value)
