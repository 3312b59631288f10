"""The page of a reproduction: rows that line up, and numbers that no line ends within."""

from slimnet.report.paper import page as paper_page
from slimnet.reproduction.catalogue import Table, tables
from slimnet.reproduction.markdown import Found
from slimnet.reproduction.results import Result, Run

WHERE = {"Processor": "P", "Device": "CPU", "Threads": "1"}


def result(name: str, *gammas: float) -> Result:
    readings = [dict.fromkeys(paper_page.READINGS, 0.0) | {"gamma": gamma} for gamma in gammas]
    runs = tuple(Run(seed, each, (), (2, 1), 0, 0.0, 1.0, 1.0, WHERE) for seed, each in enumerate(readings))
    recipe = {"arch": "basicnet", "data": "cifar10", "iterations": 4, "precision": "bf16"}
    return Result((name,), "small", recipe, runs)


def found(table: Table) -> dict[str, Result]:
    """Two seeds, at 30 and 50 %, of the first network of a table."""
    return {table.entries[0].name: result(table.entries[0].name, 30.0, 50.0)}


def test_the_rows_of_both_data_sets_are_the_same():
    """Li et al., whom table 7 quotes on CIFAR-10 alone, leave their place on CIFAR-100 empty."""
    table = tables()["table7"]
    panels = paper_page.bars(table, found(table))
    ten, hundred = panels["CIFAR-10"], panels["CIFAR-100"]
    assert [bar.label for bar in ten] == [bar.label for bar in hundred]
    assert [(bar.paper, bar.ours) for bar in hundred][-2:] == [(69, None), (None, None)]
    assert (ten[0].paper, ten[0].ours, ten[0].spread) == (86, 40, 10)
    assert ten[-1].paper == 37


def test_no_line_ends_within_a_number():
    printed = paper_page.unbroken("γ × 0.1 at 1e-3: 36.5 ± 0.2, e-mail")
    assert printed == "γ ×\xa00.1 at 1e\N{NON-BREAKING HYPHEN}3: 36.5\xa0±\xa00.2, e-mail"


def test_the_page_shows_a_table_with_ours_beside_the_papers():
    table = tables()["table7"]
    page = paper_page.render_paper(Found(("table7",), "small", found(table), {}), {})
    assert "40.0 ± 10.0" in page
    assert "quoted from Li et al. 2017" in page
    assert "2 seeds × 4 on A" in page
