"""Figure 4 and supplementary figure 3 of the paper: what each regulariser does to a number under low gradients.

Both are simulated in full with the trainer's own optimisers, at the paper's settings. How low the gradients are is
reconstructed, so figure 4 is simulated with ten times less and more noise as well, to see which of its orders depend
on that.

    python benchmarks/scalars.py
    python benchmarks/scalars.py --table
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from slimnet.benchmark.environment import environment
from slimnet.errors import SlimnetError
from slimnet.report.drawing.svg import standalone
from slimnet.report.paper.scalar_figures import draw_scalars
from slimnet.reproduction.scalar_text import bullets, halves
from slimnet.reproduction.scalars import LowGradients, ScalarFigure, claims, figure_4, supplementary_figure_3
from slimnet.storage.files import whole_file

RESULTS = Path(__file__).parent / "results" / "scalars.json"
OTHER_NOISES = (1e-6, 1e-4)


def measure(low: LowGradients, other_noises: tuple[float, ...] = OTHER_NOISES) -> tuple[ScalarFigure, ...]:
    """Figure 4, supplementary figure 3, and figure 4 at other noises."""
    others = [figure_4(dataclasses.replace(low, noise=noise)) for noise in other_noises]
    return (figure_4(low), supplementary_figure_3(low), *others)


def as_data(figures: tuple[ScalarFigure, ...]) -> dict[str, Any]:
    """What is written down: settings and curves of each figure, and on what they were made."""
    return {
        "environment": dict(environment().rows()),
        "figures": [dataclasses.asdict(figure) for figure in figures],
        "reconstructed": "noise, early noise, iterations, λ, and the optimisers of supplementary figure 3",
    }


def read(results: dict[str, Any]) -> tuple[ScalarFigure, ...]:
    """The figures that `as_data` wrote."""
    return tuple(ScalarFigure.from_dict(each) for each in results["figures"])


def table(results: dict[str, Any]) -> str:
    """Iterations until the number is halved, for every λ, in Markdown, and which of the paper's claims hold."""
    main, supplementary, *others = read(results)
    parts = []
    for figure in (main, supplementary):
        image = f"![{figure.title}](../results/{drawing_name(figure)})"
        parts += [f"**{figure.title}**", image, halves(figure)]
    parts.append(bullets(claims(main)))
    for figure in others:
        found = claims(figure)
        parts.append(f"With noise {figure.gradients.noise:g}, figure 4 again:\n\n{bullets(found)}")
    return "\n\n".join(parts)


def drawing_name(figure: ScalarFigure) -> str:
    """The file that a figure is drawn into."""
    return f"{figure.title.lower().replace(' ', '-')}.svg"


def write(results: dict[str, Any], path: Path) -> None:
    """Replace the results file in one step, a curve a line, and draw its first two figures beside it."""
    text = json.dumps(results, indent=1, sort_keys=True)
    for figure in results["figures"]:
        for curve in figure["curves"]:
            indented = json.dumps(curve, indent=1, sort_keys=True).replace("\n", "\n    ")
            text = text.replace(indented, json.dumps(rounded(curve), sort_keys=True))
    with whole_file(path, SlimnetError) as file:
        file.write_text(text + "\n")
    for figure in read(results)[:2]:
        (path.parent / drawing_name(figure)).write_text(standalone(draw_scalars(figure).wide), encoding="utf-8")


def rounded(curve: dict[str, Any]) -> dict[str, Any]:
    """A curve with four digits of each reading."""
    digits = {name: [float(f"{value:.4g}") for value in curve[name]] for name in ("low", "median", "high")}
    return {**curve, **digits}


def main() -> None:
    """Simulate, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=LowGradients.iterations)
    parser.add_argument("--seeds", type=int, default=LowGradients.seeds)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what is in the output file and run nothing")
    options = parser.parse_args()
    if not options.table:
        torch.set_num_threads(1)
        write(as_data(measure(LowGradients(iterations=options.iterations, seeds=options.seeds))), options.out)
    print(table(json.loads(options.out.read_text())))


if __name__ == "__main__":
    main()
