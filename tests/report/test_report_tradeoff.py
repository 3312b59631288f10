"""Error against cost: every network has its mark, and the drawing takes what other people call their networks."""

from xml.etree import ElementTree

import pytest
from pages import EVIL

from slimnet.report.drawing.tradeoff import LONGEST_NAME, Mark, per_cent, tradeoff
from slimnet.report.formatting import printable

DENSE = Mark("dense", 1.0, 0.06)
SVG = "{http://www.w3.org/2000/svg}"


def drawn(marks, dense=DENSE):
    return tradeoff("marks", "Error against MACs", marks, dense, "MACs left", per_cent)


def texts(svg):
    return {"".join(each.itertext()) for each in ElementTree.fromstring(svg).iter(f"{SVG}text")}


@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_every_series_is_named_once_and_the_dense_network_too(width):
    marks = [Mark(method, cost, 0.1, before=0.3) for method in ("li2017", "random") for cost in (0.25, 0.5)]
    assert {"li2017", "random", "dense", "MACs left", "test error, %"} <= texts(getattr(drawn(marks), width))


def test_each_network_has_a_mark_and_a_hollow_one_before_fine_tuning():
    """Oracle: the number of `use` elements, which matplotlib writes for each marker (legend and ticks included)."""

    def markers(marks):
        return len(list(ElementTree.fromstring(drawn(marks).wide).iter(f"{SVG}use")))

    plain = [Mark("li2017", cost, 0.1) for cost in (0.25, 0.5, 0.75)]
    tuned = [Mark("li2017", cost, 0.1, before=0.11) for cost in (0.25, 0.5, 0.75)]
    assert markers(tuned) == markers(plain) + 3


@pytest.mark.parametrize("errors", [(0.0, 0.0), (0.0, 0.9), (0.02, 0.9), (1.0, 1.0)])
def test_errors_of_every_size_can_be_drawn(errors):
    low, high = errors
    assert drawn([Mark("a", 0.5, high)], Mark("dense", 1.0, low)).wide.startswith("<svg")


def test_names_that_other_people_choose_are_text():
    assert printable(EVIL, LONGEST_NAME) in texts(drawn([Mark(EVIL, 0.5, 0.1)]).wide)


def test_a_series_that_begins_with_an_underscore_is_in_the_legend():
    """matplotlib leaves such names out."""
    assert any(text.endswith("_mine") for text in texts(drawn([Mark("_mine", 0.5, 0.1)]).wide))
