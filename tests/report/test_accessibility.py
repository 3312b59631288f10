"""Reports and pages of the site pass axe-core in headless Chromium, in light and dark; `make axe` fetches it."""

import os
import subprocess
import sys
from pathlib import Path

import axe
import pytest
import torch
from test_paper_page import found
from test_report import WHERE, comparison, slimmed, training
from test_report_methods import outcome
from test_report_training import record

from slimnet.accuracy import Accuracy
from slimnet.census import take_census
from slimnet.comparison import Dense, Results, Size
from slimnet.models import build
from slimnet.report import Report, render, render_methods, render_training
from slimnet.report.census.page import render_census
from slimnet.report.paper.page import render_paper
from slimnet.reproduction.catalogue import tables
from slimnet.reproduction.markdown import Found
from slimnet.training.finetune import retraining

ROOT = Path(__file__).parents[2]
SITE = ("index.html", "start.html", "manual.html", "how-it-works.html", "api/slimnet.html", "commands/slim.html")

pytestmark = pytest.mark.skipif(bool(axe.missing()), reason=axe.missing())


def network_page(_: Path) -> str:
    result, (right, same) = slimmed(), [Accuracy(0.975, 1.0, 360)] * 2
    gammas = {"features.conv1": [1e-6, 0.5], "features.conv2": [0.7, 1.1, 0.0]}
    return render(
        Report(
            title="basicnet on digits",
            plan=result.plan,
            certificate=result.certificate,
            environment=WHERE,
            gammas=gammas,
            accuracies=(right, same),
            comparison=comparison(),
            training=training(),
        )
    )


def methods_page(_: Path) -> str:
    outcomes = (outcome("implicit", 0.06, budget=None), outcome("implicit", 0.3, 0.08), outcome("random", 0.9, 0.4))
    recipe = retraining("resnet56", "cifar10", 300)
    dense = Dense(Size(100, 1000, 1000), 0.06)
    return render_methods(Results("resnet56.th", "cifar10", 10_000, dense, outcomes, recipe, WHERE))


def training_page(_: Path) -> str:
    return render_training(record())


def paper_page(_: Path) -> str:
    table = tables()["table7"]
    return render_paper(Found(("table7",), "small", found(table), {}), {})


def census_page(_: Path) -> str:
    row = take_census("resnet20.th", build("resnet20").eval(), torch.randn(1, 3, 32, 32), arch="resnet20")
    return render_census([row], 1e-3)


REPORTS = (network_page, methods_page, training_page, paper_page, census_page)


@pytest.mark.parametrize("make", REPORTS, ids=lambda make: make.__name__)
def test_a_report_has_no_violation(make, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(make(tmp_path), encoding="utf-8")
    for theme in axe.THEMES:
        assert axe.in_lines(axe.violations(path, theme)) == [], theme


def test_a_violation_is_seen(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(
        '<html lang="en"><head><title>A page</title></head><body><main><h1>Plot</h1><img src="a.png">'
        '<p style="color: #aaa; background: #fff">faint</p><button>Go</button></main></body></html>'
    )
    rules = {each["rule"] for each in axe.violations(path)}
    assert {"image-alt", "color-contrast"} <= rules


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The documentation, built as `make docs` builds it."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    return folder


@pytest.mark.parametrize("page", SITE)
def test_a_page_of_the_site_has_no_violation(page, site):
    for theme in axe.THEMES:
        assert axe.in_lines(axe.violations(site / page, theme)) == [], theme
