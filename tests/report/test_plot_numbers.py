"""Every plot has a name for screen readers, and its numbers in a table that the keyboard reaches."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_pages import GAMMAS, PAGES, simulated
from test_report import slimmed, training
from test_report_contenders import NAMES, several
from test_report_training import record

from slimnet.report.drawing.numbers import Numbers, distributions, spaced
from slimnet.report.drawing.tradeoff import Mark, per_cent, tradeoff
from slimnet.report.rendering import TEMPLATES

ROOT = Path(__file__).parents[2]
FIGURE = re.compile(
    r'<figure[^>]* ?id="([^"]+)">(.*?)</figure>\s*<div class="in-numbers">\s*'
    r'(?:<details>|<p class="note"><a href="#([^"]+)">)',
    re.DOTALL,
)
"""The id of a figure, what is in it, and the id of the table to which its numbers lead if it has none of its own."""

NAMED = re.compile(r'<svg[^>]* role="img" aria-labelledby="([^"]+)"[^>]*><title id="\1">[^<]+</title>')
IMAGE = re.compile(r"(?:\[(?=!\[))?!\[([^\]]*)\]\(([^)\s]+)\)(?:\]\(([^)]+)\))?")


class Tables(HTMLParser):
    """The tables of a page: for each id its rows of text, headings first."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self._cell = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self._rows = []
            self.found[dict(attributes).get("id") or f"table {len(self.found)}"] = self._rows
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = True
            self._rows[-1].append("")

    def handle_endtag(self, tag):
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._cell:
            self._rows[-1][-1] += data


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {make.__name__: make() for make in PAGES}


@pytest.fixture(scope="module")
def tables(pages) -> dict[str, dict[str, list[list[str]]]]:
    """The tables of each page, without the headings, with plain spaces."""
    return {
        name: {
            key: [[cell.replace("\u202f", " ") for cell in row] for row in rows[1:]]
            for key, rows in Tables(page).found.items()
        }
        for name, page in pages.items()
    }


def test_every_template_of_a_page_is_looked_at():
    whole = {path.name for path in TEMPLATES.glob("*.jinja") if "{% extends" in path.read_text(encoding="utf-8")}
    assert whole == set(PAGES.values())


def test_every_plot_of_a_template_is_looked_at(pages):
    """Those of the page about the paper have the names of its tables and figures."""
    text = "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.jinja"))
    named = set(re.findall(r'figure\(drawings, "(\w+)"', text))
    assert len(named) > 12
    assert {"silhouette", "table7", "fig2", "fig3", "fig4", *named} <= set(
        re.findall(r'<figure[^>]* id="(\w+)"', "".join(pages.values()))
    )


@pytest.mark.parametrize("name", [make.__name__ for make in PAGES])
def test_every_plot_has_a_name_and_a_table(name, pages):
    page, tables = pages[name], Tables(pages[name]).found
    plots = FIGURE.findall(page)
    assert plots
    assert sum(figure.count("<svg") for _, figure, _ in plots) == page.count("<svg"), "a drawing without its numbers"
    for identity, figure, elsewhere in plots:
        assert len(NAMED.findall(figure)) == figure.count("<svg") == 2, identity
        rows = tables[elsewhere or f"{identity}-numbers"]
        assert len(rows) > 1, identity
        assert elsewhere or len({len(row) for row in rows}) == 1, identity


def test_the_widths_are_those_of_the_plan(tables):
    plan = slimmed().plan
    expected = [[each.name, f"{each.channels_before:,}", f"{each.channels_after:,}"] for each in plan.layers]
    assert tables["network_page"]["widths-numbers"] == expected


def test_the_bars_of_a_histogram_count_every_channel_once(tables):
    gammas = [abs(gamma) for each in GAMMAS.values() for gamma in each]
    rows = tables["network_page"]["gammas-numbers"]
    assert sum(int(count) for _, _, count, _ in rows) == len(gammas)
    assert sum(int(count) for *_, count, state in rows if state == "dead") == sum(gamma < 1e-3 for gamma in gammas)


def test_traces_are_quantiles_of_all_channels_at_points_in_time(tables):
    """Oracle: numpy on the history itself."""
    rows, history = tables["network_page"]["traces-numbers"], training()
    first, last = rows[0], rows[-1]
    assert (first[1], last[1]) == ("10", "200")
    assert [float(cell) for cell in last[2:]] == pytest.approx(
        np.quantile(np.abs(history.gammas[-1]), [0, 0.1, 0.5, 0.9, 1]).tolist(), rel=0.01
    )


def test_a_profile_has_a_row_for_each_layer(tables):
    rows = {row[0]: row[1:] for row in tables["contenders_page"]["layertimes-numbers"]}
    (profile,) = several().profiles
    speedup = profile.rows[0].speedup()
    assert rows["conv1"][0] == "100 → 50"
    assert rows["conv1"][3] == f"{speedup.value:.2f}"
    assert rows["lost"][2:] == ["–", "–", "–"]


def test_every_network_of_a_plot_of_errors_is_in_its_table(tables):
    rows = tables["contenders_page"]["macs-numbers"]
    assert [row[0].split("\\")[0].split("<")[0] for row in rows] == [name.split("<")[0] for name in NAMES]
    assert rows[2][1:] == ["50 %", "10.0 %"]
    tuned = tradeoff("x", "x", [Mark("a", 0.375, 0.1, (0.3, 0.45), 0.5)], Mark("dense", 1.0, 0.05), "cost", per_cent)
    assert tuned.numbers.columns == ("Network", "Cost", "Interval", "Error before fine-tuning", "Error")
    assert [cell.replace("\u202f", " ") for cell in tuned.numbers.rows[1]] == [
        "a",
        "37.5 %",
        "30 % to 45 %",
        "50.0 %",
        "10.0 %",
    ]


def test_a_training_has_a_row_for_each_report(tables):
    rows = tables["training_page"]["progress-numbers"]
    assert rows[-1][:5] == ["50", "0.4", "10.0 %", "10.0 %", "40.0 %"]
    assert [row[5] for row in rows] == ["1.00 k", "850", "700", "550", "400"]
    assert [row[6] for row in rows] == ["1.00 k", "1.00 k", "800", "700", "600"]
    assert tables["training_page"]["layers-numbers"] == [
        ["features.conv1", "4", "1", "1"],
        ["features.conv2", "6", "1", "1"],
    ]
    assert tables["training_page"]["deaths-numbers"][0] == ["features.conv1", "0 %", "0 %", *["25.0 %"] * 3]
    for row in tables["training_page"]["universality-numbers"]:
        assert sum(float(cell.split(" ")[0]) for cell in row[1:]) == pytest.approx(100, abs=0.5)
    values = record().betas["features.bn2"][-1]
    (last,) = (row for row in tables["training_page"]["betas-numbers"] if row[:2] == ["features.conv2", "50"])
    assert [float(last[2]), float(last[4]), float(last[6])] == pytest.approx(
        [values.min(), np.median(values), values.max()], rel=0.01
    )


def test_a_simulation_has_a_row_for_each_curve(tables):
    curves, rows = simulated().curves, tables["paper_page"]["fig4-numbers"]
    assert len(rows) == len(curves)
    assert rows[0][-1].startswith(f"{curves[0].median[-1]:.3g} (")


def test_long_curves_are_thinned_out_and_the_table_says_so():
    assert spaced(range(1000), 3) == [0, 500, 999]
    assert spaced([1, 2], 3) == [1, 2]
    long = distributions({"conv1": (np.arange(100), np.zeros((100, 3)))}, "Layer")
    assert [row[1] for row in long.rows] == ["0", "14", "28", "42", "57", "71", "85", "99"]
    assert long.note == "8 of 100 points in time, evenly spaced."


def test_names_from_files_are_printable_in_tables():
    assert Numbers.of(("Layer",), [("a\x00b\x1b[1m",)]).rows == (("a�b�[1m",),)


def markdown_pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "benchmarks").rglob("*.md"))]


def test_every_picture_of_the_documentation_has_a_text_and_every_plot_a_table():
    """On the same page, or on the one to which the picture leads."""
    plots = 0
    for path in markdown_pages():
        text = path.read_text(encoding="utf-8")
        for words, file, link in IMAGE.findall(text):
            assert len(words.split()) > 1, f"{path}: {file}"
            assert (path.parent / file).is_file(), f"{path}: {file}"
            if file.endswith(".svg"):
                target = (path.parent / link).read_text(encoding="utf-8") if link else text
                assert "|--" in target, f"{path}: {file}"
                plots += 1
    assert plots >= 4
