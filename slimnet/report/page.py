"""Put a report together: the verdict, the figures, and the page that they go into."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from slimnet.benchmark import Comparison
from slimnet.errors import SlimnetError
from slimnet.files import whole_file
from slimnet.plan import SurgeryPlan
from slimnet.printable import printable
from slimnet.report import contenders, figures, methods, verdict, wording
from slimnet.report.content import Report
from slimnet.report.tradeoff import milliseconds, per_cent, tradeoff
from slimnet.training.metrics import DEAD_BELOW

TEMPLATES = Path(__file__).parent

Drawings = dict[str, dict[str, str]]


def write_report(report: Report, path: Path) -> Path:
    """Write the report as one HTML file that needs nothing else, replacing an earlier one in one step.

    Raises:
        SlimnetError: it cannot be written there.
    """
    return write_page(render(report), path)


def render(report: Report) -> str:
    """The report as HTML text; every name in it is escaped."""
    return fill(
        "report.html.jinja",
        report=report,
        title=report.title,
        version=report.environment.slimnet,
        headline=verdict.headline(report),
        certificate_title=verdict.certificate_title(report.certificate) if report.certificate else "",
        sentences=verdict.sentences(report),
        tiles=verdict.tiles(report),
        reasons=verdict.reasons(report),
        recipe=verdict.recipe_rows(report.training.recipe, report.training.seconds) if report.training else (),
        slower=verdict.is_slower_anywhere(report),
        rows=contenders.contender_rows(report.comparison) if report.comparison and report.several else (),
        speeds=contenders.speed_rows(report.comparison) if report.comparison else (),
        profiles=report.comparison.profiles[:1] if report.comparison else (),
        environment_rows=environment_rows(report),
        methods=methods.method_rows(report.methods) if report.methods else (),
        told=methods.told(report.methods) if report.methods else "",
        tuning=methods.tuning(report.methods) if report.methods else "",
        drawings=drawings(report),
    )


def environment_rows(report: Report) -> list[tuple[str, str]]:
    """Where it was measured, and by which plan the network was cut."""
    plan = [] if report.plan is None else [("Plan", report.plan.digest[:16])]
    return [*report.environment.rows(), *plan]


def write_page(page: str, path: Path) -> Path:
    """Write an HTML file, replacing an earlier one in one step.

    Raises:
        SlimnetError: it cannot be written there.
    """
    with whole_file(path, SlimnetError) as file:
        file.write_text(page, encoding="utf-8")
    return path


def fill(template: str, **values: Any) -> str:
    """A template with its values as HTML text; what is not `Markup` is escaped, and made printable."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": wording.amount,
        "duration": wording.duration,
        "percent": wording.percent,
        "printable": wording.printable,
        "tiny": wording.tiny,
    }
    style = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(style=style, **values)


def _shown(value: Any) -> Any:
    return printable(value, kept="\n\t") if type(value) is str else value


def marked(drawings: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Markup]]:
    """Drawings, which escape what they show themselves, as a template takes them."""
    return {name: {width: Markup(svg) for width, svg in both.items()} for name, both in drawings.items()}


def drawings(report: Report) -> dict[str, dict[str, Markup]]:
    """The figures that this report has the values for, by name, each wide and narrow."""
    found = _of_plan(report.plan) if report.plan is not None else {}
    if report.comparison is not None:
        found |= _of_comparison(report.comparison)
    if report.methods is not None:
        found |= methods.method_drawings(report.methods)
    gammas = list(chain.from_iterable(report.gammas.values()))
    threshold = report.plan.threshold if report.plan is not None else DEAD_BELOW
    if gammas:
        found["gammas"] = figures.gamma_histogram(gammas, threshold)
    if report.training is not None and len(report.training.iterations) > 1:
        found["progress"] = figures.progress(report.training)
        found["traces"] = figures.gamma_traces(report.training, threshold)
    return marked(found)


def _of_plan(plan: SurgeryPlan) -> Drawings:
    if not plan.layers:
        return {}
    return {
        "silhouette": figures.silhouette([(each.channels_before, each.channels_after) for each in plan.layers]),
        "widths": figures.widths(plan.layers),
    }


def _of_comparison(comparison: Comparison) -> Drawings:
    found = {}
    if comparison.latencies:
        found["speedups"] = figures.speedups(comparison.latencies)
    if comparison.profiles:
        found["layertimes"] = figures.layer_times(comparison.profiles[0])
    if len(comparison.counts) > 2:
        if marks := contenders.macs_marks(comparison):
            label = "multiply-accumulates left"
            found["macs"] = tradeoff("macs", "Test error against MACs", marks[1:], marks[0], label, per_cent)
        if marks := contenders.latency_marks(comparison):
            label = f"milliseconds on {comparison.latencies[-1].label}"
            found["latency"] = tradeoff("latency", "Error against latency", marks[1:], marks[0], label, milliseconds)
    return found
