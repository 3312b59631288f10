"""Reports and pages of the site pass axe-core in headless Chromium, in light and dark; `make axe` fetches it."""

import os
import subprocess
import sys
from pathlib import Path

import axe
import pytest
from report_pages import PAGES

ROOT = Path(__file__).parents[2]
SITE = (
    "index.html",
    "start.html",
    "manual.html",
    "how-it-works.html",
    "guides/slim.html",
    "guides/train.html",
    "guides/compare.html",
    "api/slimnet.html",
    "commands/slim.html",
)

pytestmark = pytest.mark.skipif(bool(axe.missing()), reason=axe.missing())


@pytest.mark.parametrize("make", PAGES, ids=lambda make: make.__name__)
def test_a_report_has_no_violation(make, tmp_path):
    """With every table of numbers open, as wide as a desktop and as a telephone."""
    path = tmp_path / "report.html"
    path.write_text(make().replace("<details>", "<details open>"), encoding="utf-8")
    for theme in axe.THEMES:
        assert axe.in_lines(axe.violations(path, theme)) == [], theme
    assert axe.in_lines(axe.violations(path, width=390)) == []


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
