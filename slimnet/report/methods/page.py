"""The page about methods of choosing channels."""

from pathlib import Path

from slimnet.comparison import Results
from slimnet.report.methods.text import headline, method_drawings, method_rows, removal_note, sentences, tuning
from slimnet.report.rendering import fill, marked, write_page
from slimnet.version import installed_version


def write_methods_report(results: Results, path: Path) -> Path:
    """Write a comparison of methods as one self-contained HTML file, atomically.

    Raises:
        SlimnetError: it cannot be written there.
    """
    return write_page(render_methods(results), Path(path))


def render_methods(results: Results) -> str:
    """The page as HTML text; all names are escaped."""
    return fill(
        "methods.html.jinja",
        results=results,
        title=f"{results.network} on {results.data}",
        version=installed_version("slimnet"),
        headline=headline(results),
        sentences=sentences(results),
        rows=method_rows(results),
        removal=removal_note(results),
        tuning=tuning(results),
        drawings=marked(method_drawings(results)),
    )
