"""Numbers that README and docs quote are those of benchmarks/results and of the paper's tables."""

import re

import pytest
import quoted_numbers


@pytest.mark.parametrize("page", quoted_numbers.PAGES, ids=lambda page: str(page.relative_to(quoted_numbers.ROOT)))
def test_a_page_is_up_to_date(page):
    """If not: python benchmarks/quoted_numbers.py."""
    text = page.read_text(encoding="utf-8")
    assert quoted_numbers.renewed(text) == text


def test_a_stale_number_is_renewed_and_an_unknown_name_is_seen():
    known = "error <!-- number: resnet56 dense -->99 %<!-- / -->, as printed"
    assert quoted_numbers.renewed(known) == known.replace("99 %", "6.6 %")
    with pytest.raises(KeyError):
        quoted_numbers.renewed("<!-- number: of nothing -->1<!-- / -->")


def test_every_marker_is_closed_and_every_number_is_quoted():
    texts = "".join(page.read_text(encoding="utf-8") for page in quoted_numbers.PAGES)
    opened = re.findall(r"<!-- (?:number: [^>]*|evidence) -->", texts)
    assert len(opened) == len(quoted_numbers.MARKED.findall(texts)) == texts.count("<!-- / -->")
    assert {name for _, name, *_ in quoted_numbers.MARKED.findall(texts)} - {""} == set(quoted_numbers.NUMBERS)


def test_a_shortened_schedule_is_named_in_its_line():
    """As long as no run has the paper's length."""
    lines = [line for line in quoted_numbers.evidence().splitlines() if "Adam with L2 kills filters" in line]
    assert [("shortened" in line) or ("the paper's" in line) for line in lines] == [True]
