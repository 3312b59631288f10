"""The page of a ladder: one table and one plot of the cost and the error of each rung."""

from collections.abc import Sequence
from pathlib import Path

from slimnet.methods.iterative_pruning import Rung, front
from slimnet.report.drawing.tradeoff import Mark, per_cent, tradeoff
from slimnet.report.formatting import amount, percent, tiny
from slimnet.report.rendering import fill, marked, write_page
from slimnet.version import installed_version


def write_ladder(title: str, rungs: Sequence[Rung], path: Path) -> Path:
    """Write the page as one self-contained HTML file, atomically.

    Raises:
        SlimnetError: it cannot be written there.
    """
    return write_page(render_ladder(title, rungs), path)


def render_ladder(title: str, rungs: Sequence[Rung]) -> str:
    """The page of the dense network and the rungs as HTML text; all names are escaped."""
    made = [rung for rung in rungs if not rung.note]
    dense, smallest = made[0], min(made, key=lambda rung: rung.macs or 0)
    drawings = {}
    if dense.accuracy is not None and len(made) > 1:
        cross = mark(dense, dense.macs or 1)
        drawings["macs"] = tradeoff(
            "ladder", "Error against multiply-accumulates", marks(made), cross, "MACs left", per_cent
        )
    return fill(
        "ladder.html.jinja",
        title=title,
        version=installed_version("slimnet"),
        headline=f"{len(made) - 1} network{'s' if len(made) != 2 else ''} out of one training",
        sentences=sentences(dense, smallest),
        rows=[row(rung, dense, front(made)) for rung in rungs],
        drawings=marked(drawings),
    )


def sentences(dense: Rung, smallest: Rung) -> list[str]:
    """A summary of the ladder in full sentences."""
    found = [
        f"From {amount(dense.macs or 0)} to {amount(smallest.macs or 0)} MACs.",
        "The first rung is exact; from the others live channels were removed as well, and nothing was fine-tuned.",
    ]
    if dense.accuracy is not None:
        found.append(f"Accuracy is that on {dense.images:,} test images.")
    return found


def marks(made: Sequence[Rung]) -> list[Mark]:
    """Every compact network as a mark."""
    whole = made[0].macs or 1
    return [mark(rung, whole) for rung in made[1:]]


def mark(rung: Rung, whole: int) -> Mark:
    """One network as a mark: its MACs as a fraction of the dense network's, and its error."""
    series = "dense" if rung.name == "dense" else "exact" if rung.exact else "to a budget"
    return Mark(series, (rung.macs or 0) / whole, 1 - (rung.accuracy or 0))


def row(rung: Rung, dense: Rung, best: set[str]) -> dict[str, str]:
    """One row of the table, formatted."""
    if rung.note:
        return {"name": rung.name, "note": rung.note}
    left = "" if rung.macs is None or not dense.macs else percent(rung.macs / dense.macs)
    certificate = "" if rung.difference is None else f"{tiny(rung.difference)} to {rung.reference}"
    return {
        "name": rung.name,
        "note": "",
        "params": f"{rung.params:,}",
        "macs": "" if rung.macs is None else f"{rung.macs:,}",
        "left": left,
        "accuracy": "" if rung.accuracy is None else percent(rung.accuracy, 2),
        "best": "yes" if rung.name in best else "",
        "certificate": certificate,
    }
