"""How networks of the paper's full length learn: dead filters, MACs and training loss over the iterations.

    python benchmarks/learning_curves.py --keep RUN CELL    # RUN is the folder of the training run, CELL its name
    python benchmarks/learning_curves.py                    # the table in Markdown, and the plot

Kept are the means over 64 stretches of equal length of what the run logged every 20 iterations.
"""

import argparse
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from slimnet.benchmark.environment import environment
from slimnet.errors import SlimnetError
from slimnet.report.drawing.axes import few_iterations_axis
from slimnet.report.drawing.numbers import Numbers
from slimnet.report.drawing.svg import DEAD, SLIM, Canvas, drawing, standalone
from slimnet.reproduction.variation import variation_of
from slimnet.storage.files import whole_file
from slimnet.training.run.run_folder import recipe_of

FOLDER = Path(__file__).parent / "results"
OUT, PLOT = FOLDER / "learning_curves.json", FOLDER / "learning-curves.svg"
STRETCHES = 64
SHOWN_ROWS = 16
COLUMNS, PANEL_HEIGHT = 2, 320

Curve = dict[str, list[float]]


def read_curve(run: Path) -> Curve:
    """The curve of a training run, from what it logged."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    total = rows[0]["total"]
    stretches: list[list[dict[str, Any]]] = [[] for _ in range(STRETCHES)]
    for row in rows:
        stretches[min(STRETCHES - 1, (row["iteration"] - 1) * STRETCHES // total)].append(row)
    curve: Curve = {"iterations": [], "dead": [], "macs_left": [], "loss": [], "accuracy": []}
    macs, left = rows[0]["macs"], rows[0]["macs"]
    for number, stretch in enumerate(stretches):
        left = next((row["macs_left"] for row in reversed(stretch) if "macs_left" in row), left)
        curve["iterations"].append(round((number + 1) * total / STRETCHES))
        curve["dead"].append(round(stretch[-1]["sparsity"], 5))
        curve["macs_left"].append(round(left / macs, 5))
        curve["loss"].append(round(statistics.fmean(row["loss"] for row in stretch), 5))
        curve["accuracy"].append(round(statistics.fmean(row["accuracy"] for row in stretch), 5))
    return curve


def keep(run: Path, cell: str) -> None:
    """Add the curve of a run to the results, under the name of its cell and its changes where the paper is silent."""
    results = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {"curves": {}}
    changes = variation_of(recipe_of(run)).unprinted.marks("fp32")
    results["curves"][", ".join([cell, *changes])] = read_curve(run)
    results["environment"] = dict(environment().rows())
    write(OUT, json.dumps(results, indent=1, sort_keys=True) + "\n")


def write(path: Path, text: str) -> None:
    """Write a file in one step."""
    with whole_file(path, SlimnetError) as file:
        file.write_text(text, encoding="utf-8")


def table(results: Mapping[str, Any]) -> str:
    """Some points of every curve in Markdown."""
    parts = []
    for cell, curve in sorted(results["curves"].items()):
        parts += [
            f"## {cell}",
            "",
            "| iteration | filters dead by γ | MACs left | training loss | training accuracy |",
            "|--:|--:|--:|--:|--:|",
            *(f"| {' | '.join(row)} |" for row in rows(curve)),
            "",
        ]
    return "\n".join(parts).rstrip()


def rows(curve: Curve) -> list[tuple[str, ...]]:
    """Some points of a curve in words, the last one among them."""
    step = max(1, len(curve["iterations"]) // SHOWN_ROWS)
    return [
        (
            f"{curve['iterations'][i]:,}",
            f"{100 * curve['dead'][i]:.1f} %",
            f"{100 * curve['macs_left'][i]:.1f} %",
            f"{curve['loss'][i]:.3f}",
            f"{100 * curve['accuracy'][i]:.1f} %",
        )
        for i in range(step - 1, len(curve["iterations"]), step)
    ]


def plot(results: Mapping[str, Any]) -> str:
    """The dead filters and the MACs left of every curve over the iterations, as an SVG file."""
    curves = results["curves"]

    def draw(figure: Figure, canvas: Canvas) -> None:
        panels = figure.subplots(grid_rows(curves), COLUMNS, sharey=True, squeeze=False).flatten()
        for axes in panels[len(curves) :]:
            axes.set_visible(False)
        for axes, (cell, curve) in zip(panels, sorted(curves.items()), strict=False):
            axes.plot(
                curve["iterations"], [100 * each for each in curve["dead"]], color=DEAD, label="filters dead by γ"
            )
            axes.plot(curve["iterations"], [100 * each for each in curve["macs_left"]], color=SLIM, label="MACs left")
            axes.set_title(cell.replace(", ", "\n", 1))
            axes.set_ylim(0, 104)
            few_iterations_axis(axes, curve["iterations"][-1], canvas)
        for axes in panels[::COLUMNS]:
            axes.set_ylabel("per cent")
        panels[0].legend(loc="center right")

    columns = ("network", "iteration", "filters dead by γ", "MACs left", "training loss", "training accuracy")
    numbers = Numbers.of(columns, [(cell, *row) for cell, curve in sorted(curves.items()) for row in rows(curve)])
    about = "Filters dead by γ and MACs left, in per cent, over the iterations of networks of the paper's full length."
    return standalone(drawing("learning-curves", about, lambda _: PANEL_HEIGHT * grid_rows(curves), draw, numbers).wide)


def grid_rows(curves: Mapping[str, Curve]) -> int:
    """The rows of the plot's grid of panels."""
    return math.ceil(len(curves) / COLUMNS)


def main() -> None:
    """Keep a curve, or print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", nargs=2, metavar=("RUN", "CELL"), help="add the curve of a training run")
    options = parser.parse_args()
    if options.keep:
        keep(Path(options.keep[0]), options.keep[1])
    results = json.loads(OUT.read_text(encoding="utf-8"))
    write(PLOT, plot(results))
    print(table(results))


if __name__ == "__main__":
    main()
