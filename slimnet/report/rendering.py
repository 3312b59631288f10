"""Rendering of a template with values to a self-contained HTML page."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from slimnet.errors import SlimnetError
from slimnet.printable import printable
from slimnet.report import formatting
from slimnet.report.drawing.svg import Drawing
from slimnet.storage.files import whole_file

TEMPLATES = Path(__file__).parent / "templates"


def write_page(page: str, path: Path) -> Path:
    """Write an HTML file atomically.

    Raises:
        SlimnetError: it cannot be written there.
    """
    with whole_file(path, SlimnetError) as file:
        file.write_text(page, encoding="utf-8")
    return path


def fill(template: str, **values: Any) -> str:
    """A template with its values as HTML text; values that are not `Markup` are escaped and made printable."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": formatting.amount,
        "duration": formatting.duration,
        "percent": formatting.percent,
        "printable": formatting.printable,
        "tiny": formatting.tiny,
    }
    style = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, **values)


def _shown(value: Any) -> Any:
    return printable(value, kept="\n\t") if type(value) is str else value


def marked(drawings: Mapping[str, Drawing]) -> dict[str, Drawing]:
    """Drawings, whose texts are escaped already, as `Markup` for a template."""
    return {name: replace(each, wide=Markup(each.wide), narrow=Markup(each.narrow)) for name, each in drawings.items()}
