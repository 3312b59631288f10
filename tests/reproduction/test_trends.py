"""The trends that the paper states: true of its own numbers, and judged on the means of our seeds."""

import pytest

from slimnet.errors import UsageError
from slimnet.reproduction import catalogue, markdown, results, trends
from slimnet.reproduction.catalogue import by_worth

ADAM_AND_SGD = ("Adam, L2 1e-3", "SGD, L2 1e-3")


def run(readings):
    return results.Run(0, readings, (), (2, 1), 0, 0.0, 1.0, 1.0, {"Processor": "P", "Device": "CPU", "Threads": "1"})


def test_every_trend_is_one_that_the_papers_numbers_have():
    """A claim that the paper's own numbers contradict would be none of the paper's."""
    printed = {
        entry.name: results.Result(
            (entry.name,), "full", {"arch": "basicnet", "data": "cifar10", "iterations": 4}, (run(entry.paper),)
        )
        for entry in by_worth()
        if entry.of is None
    }
    found = trends.verdicts(printed)
    assert len(found) > 30
    assert not [each for each in found if not each.holds]


def test_a_trend_without_results_is_neither_held_nor_broken():
    assert {each.holds for each in trends.verdicts({})} == {None}
    assert trends.falls([3, 3, 1])
    assert not trends.falls([3, 3])
    assert not trends.falls([1, 2, 0])


@pytest.mark.parametrize(
    ("means", "spreads", "holds", "close"),
    [
        ((50, 30), (3, 4), True, False),
        ((50, 30), (12, 9), True, True),
        ((50, 30, 0, 0), (1, 1, 0, 0), True, False),
        ((50, 30, 29), (1, 1, 1), True, True),
        ((30, 50), (3, 4), False, False),
        ((30, 32), (3, 4), False, True),
        ((30, 32, 10, 40), (3, 4, 1, 1), False, False),
        ((0, 0), (0, 0), False, False),
        ((50, 30), (0, 0), True, False),
    ],
)
def test_a_trend_is_close_where_its_seeds_overlap(means, spreads, holds, close):
    """One that holds is as sure as its closest pair, one that does not as the pair that rises farthest."""
    assert trends.falls(means) == holds
    assert trends.is_close(means, spreads) == close


def test_a_trend_is_judged_by_the_means_of_its_seeds():
    """The first of three seeds says the opposite of the mean."""
    pair = [each.name for each in (catalogue.entry("table1", row, "cifar10") for row in ADAM_AND_SGD)]
    gammas = ((10.0, 40.0, 70.0), (20.0, 24.0, 28.0))
    known = {
        name: results.Result(
            (name,),
            "small",
            {"arch": "basicnet", "data": "cifar10", "iterations": 4},
            tuple(run({"gamma": each}) for each in seeds),
        )
        for name, seeds in zip(pair, gammas, strict=True)
    }
    (found,) = [each for each in trends.verdicts(known) if each.holds is not None]
    assert (found.holds, found.close, found.seeds) == (True, True, 3)
    assert (found.values, found.spreads, found.paper) == ((40, 24), (30, 4), (83, 27))
    line = markdown.line(found, "small")
    assert "**holds, within the seeds' spread** (small, 3 seeds: 40.0 ± 30.0, 24.0 ± 4.0 %; the paper's 83, 27)" in line


def test_a_result_with_another_number_of_layers_is_refused():
    name = catalogue.entry("table2", "Adam, L2 1e-4", "cifar100").name
    recipe = {"arch": "basicnet", "data": "cifar10", "iterations": 4}
    other = results.Result((name,), "small", recipe, (run({"layers": [0.0, 0.0]}),))
    with pytest.raises(UsageError, match=f"the result of {name} has another number of layers than the paper"):
        trends.verdicts({name: other})


def test_layers_are_judged_by_the_means_of_their_seeds():
    name = catalogue.entry("table2", "Adam, L2 1e-4", "cifar100").name
    runs = tuple(run({"layers": [first, 0, 10, 0, 0, 30, 50]}) for first in (0.0, 40.0))
    verdicts = trends.verdicts(
        {name: results.Result((name,), "small", {"arch": "basicnet", "data": "cifar10", "iterations": 4}, runs)}
    )
    first, last = [each for each in verdicts if each.holds is not None]
    assert (first.values, first.spreads, first.holds, first.close) == ((20, 10), (20, 0), True, True)
    assert (last.values, last.spreads, last.paper) == ((40, 10), (0, 0), (61, 9))


def test_the_cells_of_the_trends_are_all_that_a_verdict_takes():
    cells = trends.cells()
    assert len({each.name for each in cells}) == len(cells)
    readings = {"gamma": 1.0, "error": 1.0, "pruned_error": 1.0, "layers": [1.0] * 7}
    known = {
        each.name: results.Result(
            (each.name,), "full", {"arch": "basicnet", "data": "cifar10", "iterations": 4}, (run(readings),)
        )
        for each in cells
    }
    assert None not in {each.holds for each in trends.verdicts(known)}


def test_what_the_paper_quotes_is_compared_with_at_full_scale_alone():
    """Li et al. prune 37 % with an error of 6.6 %: against two seeds of ours, and against small networks."""
    ours = catalogue.entry("table7", "Adam, L2 1e-4, batch 160", "cifar10").name
    runs = tuple(run({"gamma": gamma, "error": error}) for gamma, error in ((80.0, 6.0), (84.0, 7.4)))
    for scale, expected in (("full", [(True, (82, 37), False), (False, (6.6, 6.7), True)]), ("small", [])):
        found = trends.verdicts(
            {ours: results.Result((ours,), scale, {"arch": "basicnet", "data": "cifar10", "iterations": 4}, runs)}
        )
        known = [each for each in found if each.holds is not None]
        assert [(each.holds, each.values, each.close) for each in known] == expected
        assert {each.seeds for each in known} <= {2}
