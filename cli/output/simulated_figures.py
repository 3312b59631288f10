"""The figures of the paper that are simulated, for `slimnet reproduce`: they need no images and no training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slimnet_cli.output import terminal

if TYPE_CHECKING:
    from slimnet.reproduction.scalars import ScalarFigure


def simulate(names: Sequence[str], out: Path) -> dict[str, ScalarFigure]:
    """Simulate those of the figures that need it, and draw each next to the report.

    Simulations that are stored next to the report are not repeated.

    Raises:
        SlimnetError: the disk refuses a file.
    """
    from slimnet.report.drawing.svg import standalone
    from slimnet.report.paper.scalar_figures import draw_scalars
    from slimnet.reproduction.catalogue import SIMULATED

    found = {}
    for name in (each for each in names if each in SIMULATED):
        with terminal.working(f"Simulating {name}"):
            found[name] = known(out / f"{name}.json") or figure_of(name)
            write(out / f"{name}.json", json.dumps(dataclasses.asdict(found[name])) + "\n")
            write(out / f"{name}.svg", standalone(draw_scalars(found[name]).wide))
    return found


def figure_of(name: str) -> ScalarFigure:
    """Simulate one."""
    from slimnet.reproduction.scalars import figure_4, supplementary_figure_3

    return figure_4() if name == "fig4" else supplementary_figure_3()


def known(path: Path) -> ScalarFigure | None:
    """A stored simulation with the current settings; None if there is none."""
    from slimnet.errors import UsageError
    from slimnet.reproduction.scalars import LowGradients, ScalarFigure
    from slimnet.storage.records import read_json

    try:
        figure = ScalarFigure.from_dict(read_json(path, UsageError))
    except UsageError:
        return None
    return figure if figure.gradients == LowGradients() else None


def write(path: Path, text: str) -> Path:
    """Write a file next to the report, atomically.

    Raises:
        SlimnetError: the disk refuses it.
    """
    from slimnet.errors import SlimnetError
    from slimnet.storage.files import whole_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SlimnetError(f"cannot make {path.parent}: {error.strerror}; choose another folder with -o") from error
    with whole_file(path, SlimnetError) as file:
        file.write_text(text, encoding="utf-8")
    return path
