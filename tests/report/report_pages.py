"""Every page that slimnet writes, with everything that it can show."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from test_paper_page import WHERE as MACHINE
from test_paper_page import found, result
from test_report import WHERE, comparison, slimmed, training
from test_report_contenders import several
from test_report_methods import outcome
from test_report_training import record, reports

from slimnet.accuracy import Accuracy
from slimnet.census import take_census
from slimnet.comparison import Dense, Results, Size
from slimnet.methods.iterative_pruning import Rung
from slimnet.models import build
from slimnet.report import Report, render, render_methods, render_training
from slimnet.report.census.page import render_census
from slimnet.report.methods.iterative_page import render_ladder
from slimnet.report.paper.figures import Moved
from slimnet.report.paper.page import render_paper
from slimnet.reproduction.catalogue import figures, tables
from slimnet.reproduction.markdown import Found
from slimnet.reproduction.results import Run
from slimnet.reproduction.scalars import LowGradients, ScalarFigure, scalar_figure
from slimnet.training.finetune import retraining

GAMMAS = {"features.conv1": [1e-6, 0.5], "features.conv2": [0.7, 1.1, 0.0]}


def network_page() -> str:
    made = slimmed()
    return render(
        Report(
            title="basicnet on digits",
            plan=made.plan,
            certificate=made.certificate,
            environment=WHERE,
            gammas=GAMMAS,
            accuracies=(Accuracy(0.975, 1.0, 360),) * 2,
            comparison=comparison(),
            training=training(),
            methods=methods(),
        )
    )


def contenders_page() -> str:
    return render(Report("resnet56 on cifar10", None, None, WHERE, comparison=several()))


def methods() -> Results:
    outcomes = (outcome("implicit", 0.06, budget=None), outcome("implicit", 0.3, 0.08), outcome("random", 0.9, 0.4))
    dense, recipe = Dense(Size(100, 1000, 1000), 0.06), retraining("resnet56", "cifar10", 300)
    return Results("resnet56.th", "cifar10", 10_000, dense, outcomes, recipe, WHERE)


def methods_page() -> str:
    return render_methods(methods())


def ladder_page() -> str:
    rungs = [Rung("dense", 10, 100, accuracy=0.9, images=5), Rung("half", 5, 50, 3, "masked", 1e-7, 0.8, 5)]
    return render_ladder("resnet20 on cifar10", [*rungs, Rung("tenth", note="no network has so few")])


def training_page() -> str:
    """With validation, and with dead filters removed on the way."""
    progress = [
        replace(each, validation_accuracy=0.5 + number / 10, macs_left=1000 - 100 * number if number > 1 else None)
        for number, each in enumerate(reports())
    ]
    return render_training(record(progress=tuple(progress)))


def simulated() -> ScalarFigure:
    return scalar_figure("Figure 4", ("adam", "sgd"), LowGradients(iterations=12, seeds=2), (1e-3, 1e-5))


def history_of(label: str) -> Moved:
    values = np.random.default_rng(0).normal(0.5, 0.5, (3, 8))
    return Moved(label, np.asarray([1, 5, 9]), values, -values)


def paper_page() -> str:
    table, histories, universal = tables()["table7"], figures()["fig2"], figures()["fig3"]
    layers = (
        {"layer": "conv1", "features": 10, "bins": [2, 3, 1, 0]},
        {"layer": "conv2", "features": 4, "bins": [1] * 4},
    )
    results = found(table)
    for entry in universal.entries:
        run = Run(0, dict(result("x", 1.0).runs[0].readings), layers, (2, 1), 0, 0.0, 1.0, 1.0, MACHINE)
        results[entry.name] = replace(result(entry.name, 1.0), runs=(run,))
    moved = {entry.name: history_of(entry.row) for entry in histories.entries}
    return render_paper(Found(("table7", "fig2", "fig3"), "small", results, {"fig4": simulated()}), moved)


def census_page() -> str:
    row = take_census("resnet20.th", build("resnet20").eval(), torch.randn(1, 3, 32, 32), arch="resnet20")
    return render_census([row], 1e-3)


PAGES: dict[Callable[[], str], str] = {
    network_page: "report.html.jinja",
    contenders_page: "report.html.jinja",
    methods_page: "methods.html.jinja",
    ladder_page: "ladder.html.jinja",
    training_page: "training.html.jinja",
    paper_page: "paper.html.jinja",
    census_page: "census.html.jinja",
}
"""What makes a page, and its template."""
