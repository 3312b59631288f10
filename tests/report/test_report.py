"""The report: what it says against the plan it is about, and what it must never let through."""

import dataclasses
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from pages import EVIL, Tags, check_ids, check_isolation, check_themes

import slimnet
from slimnet.benchmark import Comparison, Counts, Environment, Latency
from slimnet.errors import SlimnetError
from slimnet.models import build
from slimnet.report import Report, Training, formatting, render, write_report
from slimnet.report.network import text as verdict
from slimnet.report.network.figures import _bins
from slimnet.surgery.plan_data import Kept, LayerPlan
from slimnet.training import Accuracy, Progress, Recipe, Snapshot

EXAMPLE = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
WHERE = Environment("CPU", "AVX2", 2, 0.0, "Linux", "3.12", "2.9", "1.20", "0.1", "2026-01-01 00:00 UTC")


def slimmed(dead: float = 0.4) -> slimnet.Slimmed:
    torch.manual_seed(0)
    model = build("basicnet", {"in_channels": 1, "width": 0.125, "hidden": 24}).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            module.weight.data[: round(dead * len(module.weight))] = 1e-6
    return slimnet.slim(model, EXAMPLE)


def comparison(speed: float = 2.0, busy: float = 0.0) -> Comparison:
    times = np.random.default_rng(0).lognormal(0, 0.02, 40)
    rows = (tuple(speed * times), tuple(times[::-1]))
    latencies = tuple(Latency("onnxruntime", batch, 2, ("dense", "slim"), rows) for batch in (1, 32))
    counts = (Counts("dense", 1, 1, {"onnx": 2_000_000}), Counts("slim", 1, 1, {"onnx": 500_000}))
    return Comparison(counts, latencies, dataclasses.replace(WHERE, other_work=busy))


def training() -> Training:
    gammas = np.geomspace(1, 1e-6, 20)[:, None] ** np.linspace(0, 1, 12)
    history = [
        Snapshot(Progress(10 * (i + 1), 200, 2.0 / (i + 1), 0.5, i / 40, float(i)), {"bn": torch.tensor(row)})
        for i, row in enumerate(gammas)
    ]
    return Training(Recipe(arch="basicnet", data="digits", iterations=200, l2=1e-3), history)


@pytest.fixture(scope="module")
def report() -> Report:
    result = slimmed()
    return Report(
        title="basicnet on digits",
        plan=result.plan,
        certificate=result.certificate,
        environment=WHERE,
        gammas={"features.conv1": [1e-6, 0.5], "features.conv2": [0.7, 1.1, 0.0]},
        accuracies=(Accuracy(0.975, 1.0, 360), Accuracy(0.975, 1.0, 360)),
        comparison=comparison(),
        training=training(),
    )


@pytest.fixture(scope="module")
def page(report) -> str:
    return render(report)


@pytest.fixture(scope="module")
def brief(report) -> Report:
    """A report that is quick to draw."""
    return dataclasses.replace(report, training=None, gammas={})


def test_every_element_closes(page):
    assert Tags(page).open == []


def test_ids_are_unique_and_every_reference_leads_somewhere(page):
    """matplotlib gives every figure the same ids; side by side they would take each other's clip paths."""
    check_ids(page)


def test_the_page_needs_nothing_else_and_runs_nothing(page):
    check_isolation(page)


def test_drawings_take_their_colours_and_font_from_the_page(page):
    check_themes(page)


def test_labels_in_drawings_are_text(page, report):
    texts = {
        "".join(element.itertext())
        for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)
        for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    }
    assert {layer.name for layer in report.plan.layers} <= texts
    assert {"threshold", "iteration", "|γ|"} <= texts


def test_the_page_says_what_the_plan_says(page, report):
    """Oracle: the plan's own numbers."""
    text = " ".join(Tags(page).text.split())
    plan = report.plan
    total = sum(layer.channels_before for layer in plan.layers)
    assert f"{plan.removed_channels} of {total} channels" in text
    assert f"{plan.params_before / plan.params_after:.1f}" in verdict.headline(report)
    assert "The certificate holds" in text
    assert f"all {report.certificate.samples} examples keep their class" in text
    assert "2.00 × faster" in text.replace("\u202f", " ")
    assert all(value in text for _, value in WHERE.rows())
    assert plan.digest[:16] in text


def test_every_name_is_escaped(report):
    """Other people choose names: markup, quotes, control characters, mathtext, foreign scripts."""
    layer = dataclasses.replace(report.plan.layers[0], name=EVIL)
    kept = (Kept(EVIL, EVIL, (0,)),)
    evil = dataclasses.replace(
        report,
        title=EVIL,
        plan=dataclasses.replace(report.plan, network=EVIL, layers=(layer, *report.plan.layers), kept=kept),
        environment=dataclasses.replace(WHERE, cpu=EVIL),
    )
    page = render(evil)
    assert "<script" not in page
    assert "\x00" not in page
    assert Tags(page).text.count("<script>alert") >= 4
    assert "$x_1$ 層" in Tags(page).text


def test_a_report_needs_no_more_than_a_plan_and_a_certificate(report):
    page = render(Report("bare", report.plan, report.certificate, WHERE))
    assert Tags(page).open == []
    assert all(words not in page for words in ("Accuracy", "How channels die", "onnxruntime, batch", "Which channels"))


def test_nothing_to_remove_is_said():
    result = slimmed(dead=0.0)
    whole = Report("whole", result.plan, result.certificate, WHERE)
    assert verdict.headline(whole) == "Nothing to remove"
    assert "No channel is dead" in render(whole)


def test_a_certificate_that_does_not_hold_comes_first(brief):
    failed = dataclasses.replace(brief, certificate=dataclasses.replace(brief.certificate, max_rel_difference=0.5))
    assert verdict.headline(failed) == "The certificate does not hold"
    assert 'class="certificate fails"' in render(failed)


def test_no_speed_up_is_claimed_where_none_was_measured(brief):
    same = dataclasses.replace(brief, comparison=comparison(speed=1.0))
    text = Tags(render(same)).text
    assert "No difference in speed was measured" in text
    assert "× faster" not in text
    assert "no measurable difference" in text


def test_no_speed_up_is_claimed_on_a_busy_machine(brief):
    """One thread that worked a third of the time; and the CPU times beside it, of which one is half of the other."""
    times = comparison(speed=2.0)
    busy = tuple(
        dataclasses.replace(
            each,
            threads=1,
            cpu_ms=tuple(tuple(sample / 3 for sample in row) for row in each.samples_ms),
            sittings=(len(each.samples_ms[0]) - 5, 5),
        )
        for each in times.latencies
    )
    text = Tags(render(dataclasses.replace(brief, comparison=dataclasses.replace(times, latencies=busy)))).text
    plain = " ".join(text.replace("\u202f", " ").split())
    assert "Its speed is not measurable on this busy machine: other programs took 67 % of the time" in plain
    assert "measure again while nothing else runs, or compare the CPU times" in plain
    assert "In each sitting" in plain
    assert "2.00 × faster" in plain, "by CPU time"
    assert "It is 2.00" not in plain


def test_a_slower_network_is_called_slower_with_the_reason(brief):
    slow = dataclasses.replace(brief, comparison=comparison(speed=0.5))
    text = Tags(render(slow)).text.replace("\u202f", " ")
    assert "× faster" not in text
    assert text.count("2.00 × slower") == 5, "in the verdict, two tiles and two rows"
    assert "no multiple" in text


def test_gains_are_not_stated_without_the_losses(brief):
    one, other = (comparison(speed).latencies[0] for speed in (2.0, 0.5))
    mixed = dataclasses.replace(comparison(), latencies=(one, other))
    printed = verdict.sentences(dataclasses.replace(brief, comparison=mixed))[-1].replace("\u202f", " ")
    assert printed.startswith("It is 2.00 × faster")
    assert "but 2.00 × slower" in printed
    only = dataclasses.replace(comparison(), latencies=(one,))
    assert "but" not in verdict.sentences(dataclasses.replace(brief, comparison=only))[-1]


def test_a_busy_machine_is_mentioned(brief):
    assert "Other programs kept 1.5 cores busy" in render(dataclasses.replace(brief, comparison=comparison(busy=1.5)))
    assert "Other programs" not in render(brief)


def test_many_layers_become_an_outline_that_stays_small(brief):
    layers = tuple(LayerPlan(f"conv{i}", "conv", 64, 32, 32, 10, 5) for i in range(300))
    page = render(dataclasses.replace(brief, plan=dataclasses.replace(brief.plan, layers=layers)))
    assert "layer, in the order of the network" in page
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "conv299" not in drawn
    assert page.count("conv299") == 1, "in the table of its numbers"


def test_reasons_are_counted_and_the_commonest_comes_first(brief):
    kept = (Kept("a", "rare", (1,)), Kept("b", "common", (1, 2)), Kept("c", "common", (3,)))
    counted = verdict.reasons(dataclasses.replace(brief, plan=dataclasses.replace(brief.plan, kept=kept)))
    assert [(each.reason, each.channels, each.layers) for each in counted] == [
        ("common", 3, ("b", "c")),
        ("rare", 1, ("a",)),
    ]


def test_the_page_says_which_share_of_the_dead_channels_stays(brief):
    """Oracle: by hand."""
    kept = (Kept("a", "as it is", (1, 2), "code", "view", "a", "net.py:7"), Kept("b", "carrier", (3,), "carrier"))
    page = render(dataclasses.replace(brief, plan=dataclasses.replace(brief.plan, kept=kept)))
    removed = brief.plan.removed_channels
    sentence = (
        f"Of {removed + 3} dead channels {removed} are removed; 2 are kept since a width is a number in the code "
        "(net.py:7); 1 since it carries constants."
    )
    assert sentence in " ".join(Tags(page).text.split())


@pytest.mark.parametrize("threshold", [1e-3, 1e-4, 0.5])
def test_no_bar_of_the_histogram_is_half_dead(threshold):
    """Oracle: the threshold is itself an edge between two bins, and every value lies in one."""
    values = np.geomspace(1e-8, 3.0, 200)
    edges = _bins(values, threshold, 50)
    assert np.isclose(edges, threshold, rtol=1e-9).sum() == 1
    assert edges[0] <= values.min() <= values.max() <= edges[-1]


@pytest.mark.parametrize("threshold", [0.0, 1e-12])
def test_a_threshold_of_nothing_can_be_drawn(report, threshold):
    assert render(dataclasses.replace(report, plan=dataclasses.replace(report.plan, threshold=threshold)))


def test_the_file_is_replaced_whole_or_not_at_all(tmp_path, brief):
    path = tmp_path / "report.html"
    path.write_text("earlier")
    assert write_report(brief, path) == path
    assert path.read_text(encoding="utf-8") == render(brief)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(SlimnetError, match="cannot write"):
        write_report(brief, tmp_path / "missing" / "report.html")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0"),
        (999, "999"),
        (999.6, "1.00 k"),
        (38_123, "38.1 k"),
        (1_160_000, "1.16 M"),
        (9.99e9, "9.99 G"),
    ],
)
def test_amounts_have_three_figures(number, words):
    assert formatting.amount(number).replace("\u202f", " ") == words


@pytest.mark.parametrize(
    ("milliseconds", "words"), [(0.0842, "84.2 µs"), (0.9996, "1.00 ms"), (1.31, "1.31 ms"), (2050, "2.05 s")]
)
def test_durations_have_three_figures(milliseconds, words):
    assert formatting.duration(milliseconds).replace("\u202f", " ") == words


def test_only_all_is_100_percent_and_only_nothing_is_0_percent():
    for digits in (0, 1, 2):
        assert formatting.percent(1.0, digits) == "100\u202f%"
        assert formatting.percent(0.0, digits) == "0\u202f%"
        assert formatting.percent(1 - 1e-9, digits).startswith(">")
        assert formatting.percent(1e-9, digits).startswith("<")
    assert formatting.percent(0.1234, 1) == "12.3\u202f%"


@pytest.mark.parametrize(
    ("number", "words"), [(None, "–"), (0.0, "0"), (2.4e-7, "2.4 × 10⁻⁷"), (1e-4, "10⁻⁴"), (0.5, "0.5")]
)
def test_tiny_numbers_are_written_as_people_write_them(number, words):
    assert formatting.tiny(number).replace("\u202f", " ") == words


def test_sizes_are_in_bytes():
    assert formatting.size(940).replace("\u202f", " ") == "940 B"
    assert formatting.size(1_160_000).replace("\u202f", " ") == "1.16 MB"


def test_long_names_lose_their_front():
    assert formatting.printable("layer3.0.conv2", 8) == "…0.conv2"
    assert formatting.printable("a\x07b\u202e\u2028 層\u202f") == "a�b�� 層\u202f"
