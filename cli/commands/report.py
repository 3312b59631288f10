"""slimnet report: draw a report of earlier measurements."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.paths import existing
from slimnet_cli.options.sources import run_arguments
from slimnet_cli.output import terminal
from slimnet_cli.output.destinations import refuse_foreign_page
from slimnet_cli.output.next_step import say_next, show_next

if TYPE_CHECKING:
    from slimnet.benchmark import Comparison
    from slimnet.comparison import Results

EXAMPLES = """\b
Examples:
  slimnet report runs/vgg
  slimnet benchmark net.pt slim/ --arch vgg16 --json > speed.json
  slimnet report speed.json -o speed.html
"""
IN_FOLDER = "report.html"


@dataclass(frozen=True)
class Measured:
    """The results in a file: a comparison of networks, or of methods."""

    comparison: Comparison | None = None
    methods: Results | None = None


@click.command(epilog=EXAMPLES, short_help="Write an HTML report of earlier measurements.")
@click.argument("subject", metavar="RUN|RESULTS", type=click.Path(path_type=Path), callback=existing)
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE.html", help="The HTML file.")
def report(subject: Path, out: Path | None) -> None:
    """Write a report as one self-contained HTML file; an earlier one is replaced, but no other file.

    RUN is the folder of a training run, finished or not, or of 'slimnet compare'; its page is RUN/report.html.
    RESULTS is the output of 'slimnet benchmark --json' or 'slimnet compare --json'; its page is written next to it.
    Nothing is measured again: 'slimnet analyse RUN --report FILE' adds the universality of the network's features.
    """
    page = out or (subject / IN_FOLDER if subject.is_dir() else subject.with_suffix(".html"))
    refuse_foreign_page(page)
    from slimnet.comparison.folder import RESULTS
    from slimnet.storage.folder_names import is_run
    from slimnet.training.run.run_folder import recipe_of

    with terminal.working("Drawing the report"):
        if not subject.is_dir():
            _draw_results(_read(subject), subject.stem, page)
        elif (subject / RESULTS).exists():
            _draw_results(_read(subject / RESULTS), subject.name, page)
        else:
            _draw_run(subject, page)
    terminal.result().print(f"written to {page}", soft_wrap=True)
    if is_run(subject):
        show_next("slim", *run_arguments(subject, recipe_of(subject)), "-o", "slim/")
    else:
        say_next(f"open {page} in a browser")


def _draw_run(folder: Path, page: Path) -> None:
    from slimnet.report import write_training_report
    from slimnet.training.run.run_folder import read_history, recipe_of

    recipe = recipe_of(folder)
    if write_training_report(read_history(folder), recipe, None, page) is None:
        raise click.UsageError(f"{folder} has no measurements yet; wait for the first ones")


def _read(path: Path) -> Measured:
    """The results in a file.

    Raises:
        click.UsageError: something else.
    """
    from slimnet.benchmark import Comparison
    from slimnet.comparison import Results
    from slimnet.errors import UsageError
    from slimnet.storage.files import read_text
    from slimnet.storage.records import parse_json

    try:
        content = read_text(path)
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror}; name a run or a file of results") from error
    except ValueError as error:
        raise click.UsageError(f"{path} is not JSON; give what 'slimnet benchmark --json' wrote") from error
    try:
        document: Any = parse_json(content, str(path), UsageError)
    except UsageError as error:
        raise click.UsageError(f"{error}; give what 'slimnet benchmark --json' wrote") from error
    if isinstance(document, dict) and "outcomes" in document:
        return Measured(methods=Results.from_dict(document))
    if isinstance(document, dict) and "comparison" in document:
        document = document["comparison"]
    return Measured(comparison=Comparison.from_dict(document, str(path)))


def _draw_results(measured: Measured, title: str, page: Path) -> None:
    from slimnet.report import Report, write_methods_report, write_report

    if measured.methods is not None:
        write_methods_report(measured.methods, page)
    elif measured.comparison is not None:
        where = measured.comparison.environment
        write_report(Report(title, None, None, where, comparison=measured.comparison), page)
