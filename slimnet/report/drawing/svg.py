"""Convert a matplotlib figure to SVG that can be inlined in a page with others, in the page's colours and font."""

import io
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from slimnet.printable import printable
from slimnet.report.drawing.numbers import Numbers, TableOnPage
from slimnet.torch_state.silence import silenced

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
PIXELS_PER_INCH = 72
COLOURS = Path(__file__).parents[1] / "templates" / "report.css"
"""The style sheet, which begins with the variables of the colours."""

# matplotlib needs literal colours; each of these is replaced by a CSS variable, which the page defines for light and
# dark mode.
INK, MUTED, GRID, DENSE, SLIM, DEAD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
BLUE, GOLD, PLUM = "#070707", "#080808", "#090909"
VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "grid", DENSE: "dense", SLIM: "slim", DEAD: "dead",
    BLUE: "blue", GOLD: "gold", PLUM: "plum",
}  # fmt: skip

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "path.simplify_threshold": 0.4,
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 12,
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "axes.unicode_minus": False,
    "grid.color": GRID,
    "grid.linewidth": 1,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Canvas:
    """The width of a figure in CSS pixels, and whether it is that of a telephone."""

    width: int
    narrow: bool


WIDE = Canvas(width=820, narrow=False)
NARROW = Canvas(width=330, narrow=True)

Draw = Callable[[Figure, Canvas], None]


@dataclass(frozen=True)
class Drawing:
    """A figure as SVG at both widths, and its numbers."""

    wide: str
    narrow: str
    numbers: Numbers | TableOnPage


def drawing(
    name: str, description: str, height: Callable[[Canvas], float], draw: Draw, numbers: Numbers | TableOnPage
) -> Drawing:
    """Draw a figure at both widths.

    `name` makes the ids in it unique within a page; `description` is for screen readers; heights are in CSS pixels.
    `numbers` are what it shows, as a table, or name the table on its page that has them.
    """
    return Drawing(
        _svg(f"{name}-wide", description, WIDE, height(WIDE), draw),
        _svg(f"{name}-narrow", description, NARROW, height(NARROW), draw),
        numbers,
    )


def _svg(name: str, description: str, canvas: Canvas, height: float, draw: Draw) -> str:
    with _style(name):
        inches = (canvas.width / PIXELS_PER_INCH, height / PIXELS_PER_INCH)
        figure = Figure(figsize=inches, dpi=PIXELS_PER_INCH, layout="constrained")
        draw(figure, canvas)
        file = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    return _inlined(file.getvalue(), name, description)


def standalone(svg: str) -> str:
    """A drawing as a standalone file: with the page's colours for light and dark mode, its background and a font."""
    rules = COLOURS.read_text(encoding="utf-8").partition("* {")[0]
    style = f"<style>{rules}svg {{ background: var(--paper); font-family: system-ui, sans-serif; }}</style>"
    head, end, body = svg.partition(">")
    return f'{head} width="{WIDE.width if "-wide" in head else NARROW.width}"{end}{style}{body}\n'


_DRAWING = threading.RLock()
"""Held during the creation of a drawing: matplotlib's settings are process-wide."""


@contextmanager
def _style(name: str) -> Iterator[None]:
    """The style of drawings, without the user's; warnings of glyphs missing in matplotlib's font are suppressed."""
    with _DRAWING, silenced(about=".*[Gg]lyph"), matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        matplotlib.rcParams["svg.hashsalt"] = name
        yield


def _inlined(svg: bytes, name: str, description: str) -> str:
    """Remove styles, sizes and ids that would affect the page, and add a title and prefixed ids."""
    # XML must not contain control characters, which names may have.
    root = ElementTree.fromstring(printable(svg.decode(), kept="\n\t\r"))
    _drop(root, "metadata", "style")
    for element in root.iter():
        _adapt(element, name)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title"}
    title = ElementTree.Element(f"{{{SVG}}}title", {"id": f"{name}-title"})
    title.text = printable(description)
    root.insert(0, title)
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _drop(element: ElementTree.Element, *tags: str) -> None:
    for child in list(element):
        if child.tag in {f"{{{SVG}}}{tag}" for tag in tags}:
            element.remove(child)
        else:
            _drop(child, *tags)


def _adapt(element: ElementTree.Element, name: str) -> None:
    """Prefix ids and references with the figure's name; use CSS variables and short numbers."""
    element.tail = None
    if element.tag != f"{{{SVG}}}text":
        element.text = None
    for key, value in list(element.attrib.items()):
        if key == "id":
            element.attrib[key] = f"{name}-{value}"
        elif key == f"{{{XLINK}}}href":
            element.attrib[key] = value.replace("#", f"#{name}-", 1)
        elif key in ("d", "x", "y", "transform"):
            element.attrib[key] = _rounded(value)
        elif key in ("style", "clip-path"):
            element.attrib[key] = _themed(value.replace("url(#", f"url(#{name}-"))


def _themed(style: str) -> str:
    for colour, variable in VARIABLES.items():
        style = style.replace(colour, f"var(--{variable})")
    return re.sub(r"font-family: [^;]*; ", "", style)


def _rounded(numbers: str) -> str:
    """Path data and coordinates with one decimal, a tenth of a pixel, on one line."""
    short = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), numbers)
    return " ".join(short.split())
