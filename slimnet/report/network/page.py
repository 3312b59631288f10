"""The page of a network report: its text and figures in the template."""

from itertools import chain
from pathlib import Path

from slimnet.benchmark import Comparison
from slimnet.benchmark.latency import REMEDY
from slimnet.report.drawing.numbers import TableOnPage
from slimnet.report.drawing.svg import Drawing
from slimnet.report.drawing.tradeoff import milliseconds, per_cent, tradeoff
from slimnet.report.methods import text as methods_text
from slimnet.report.network import contenders, figures, text
from slimnet.report.network.content import Report
from slimnet.report.rendering import fill, marked, write_page
from slimnet.surgery.plan import SurgeryPlan
from slimnet.training.analysis.metrics import DEAD_BELOW

Drawings = dict[str, Drawing]


def write_report(report: Report, path: Path) -> Path:
    """Write the report as one self-contained HTML file, atomically.

    Raises:
        SlimnetError: it cannot be written there.
    """
    return write_page(render(report), path)


def render(report: Report) -> str:
    """The report as HTML text; all names are escaped."""
    return fill(
        "report.html.jinja",
        report=report,
        title=report.title,
        version=report.environment.slimnet,
        headline=text.headline(report),
        certificate_title=text.certificate_title(report.certificate) if report.certificate else "",
        sentences=text.sentences(report),
        tiles=text.tiles(report),
        reasons=text.reasons(report),
        shares=text.shares(report),
        recipe=text.recipe_rows(report.training.recipe, report.training.seconds) if report.training else (),
        slower=text.is_slower_anywhere(report),
        rows=contenders.contender_rows(report.comparison) if report.comparison and report.several else (),
        speeds=contenders.speed_rows(report.comparison) if report.comparison else (),
        profiles=report.comparison.profiles[:1] if report.comparison else (),
        doubts=report.comparison.doubts if report.comparison else (),
        remedy=REMEDY,
        environment_rows=environment_rows(report),
        methods=methods_text.method_rows(report.methods) if report.methods else (),
        removal=methods_text.removal_note(report.methods) if report.methods else "",
        tuning=methods_text.tuning(report.methods) if report.methods else "",
        drawings=drawings(report),
    )


def environment_rows(report: Report) -> list[tuple[str, str]]:
    """The environment of the measurements, who counted the MACs, and the digest of the plan."""
    plan = [] if report.plan is None else [("Plan", report.plan.digest[:16])]
    counted = report.comparison.counted_by if report.comparison is not None else ""
    return [*report.environment.rows(), *([("MACs", f"counted by {counted}")] if counted else []), *plan]


def drawings(report: Report) -> Drawings:
    """The figures for which this report has values, by name, each wide and narrow."""
    found = _of_plan(report.plan) if report.plan is not None else {}
    if report.comparison is not None:
        found |= _of_comparison(report.comparison)
    if report.methods is not None:
        found |= methods_text.method_drawings(report.methods)
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
        "silhouette": figures.silhouette(
            [(each.channels_before, each.channels_after) for each in plan.layers], TableOnPage("widths-numbers")
        ),
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
