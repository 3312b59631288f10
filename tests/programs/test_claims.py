"""benchmarks/claims.py: the lines of networks that were trained at the paper's length, on made-up results."""

from dataclasses import replace

import claims
import paper
import phenomenon
import pytest

from slimnet.reproduction.results import Result

FOUND = paper.found("small")


def at_scale(scale: str, name: str, gamma: float, error: float) -> Result:
    """A made-up result of one seed."""
    known = FOUND.results[name]
    readings = {**known.runs[0].readings, "gamma": gamma, "error": error}
    return replace(known, scale=scale, names=(name,), runs=(replace(known.runs[0], readings=readings),))


def at_full_length(name: str) -> Result:
    """A result of the small scale that says it is one of the paper's length."""
    known = FOUND.results[name]
    recipe = {**known.recipe, "iterations": 406_250, "precision": "bf16", "shrink_every": 500}
    readings = {**known.runs[0].readings, "gamma": 21.04, "error": 13.0}
    return replace(known, scale="full", recipe=recipe, runs=(replace(known.runs[0], readings=readings),))


def test_a_network_of_the_papers_length_stands_beside_the_papers_numbers():
    """Oracle: by hand, with table 4 of the paper."""
    claim = claims.full_length(at_full_length("table4-32-0.25x-cifar10"))
    assert claim.claim == "The paper's network 32-0.25x on CIFAR-10, trained at full length: dead by γ and test error"
    assert (claim.other, claim.ours) == ("paper: 23 %, 13.4 %", "21.0 %, 13.0 %")
    assert claim.count == "1 seed"
    assert claim.length == "the paper's 406,250 iterations, bf16, dead channels removed while it trains"


def test_changes_where_the_paper_is_silent_are_named():
    plain = at_full_length("table4-32-0.25x-cifar10")
    arguments = {**plain.recipe["arch_args"], "pool_after": [1, 2, 4]}
    claim = claims.full_length(replace(plain, recipe={**plain.recipe, "crop": 4, "arch_args": arguments}))
    assert claim.length.endswith("images shifted by up to 4 pixels, pooling after C1, C2, C4")


@pytest.mark.parametrize(("count", "words"), [(0, "No network has"), (1, "One network of"), (2, "2 networks of")])
def test_the_page_says_how_many_there_are(count, words, monkeypatch):
    """A network that was trained with two recipes counts once."""
    once = [replace(at_full_length("table4-32-0.25x-cifar10"), names=(f"network {n}",)) for n in range(count)]
    monkeypatch.setattr(claims, "full_lengths", lambda: once * 2)
    assert claims.lengths().startswith(words)


ADAM, SGD = "table1-adam-l2-1e-3-cifar10", "table1-sgd-l2-1e-3-cifar10"


def test_the_trends_of_a_scale_are_counted_with_the_errors_of_their_networks(monkeypatch):
    """Oracle: by hand; two networks, of which one trend can be tested."""
    results = {name: at_scale("middle", name, *rest) for name, *rest in ((ADAM, 30.0, 15.0), (SGD, 2.0, 20.0))}
    monkeypatch.setattr(paper, "found", lambda scale: replace(FOUND, scale=scale, results=results))
    claim = claims.trends("middle")
    assert (claim.other, claim.ours, claim.count) == ("paper: 1 of 1", "1 of 1", "2 networks, 1 seed")
    assert claim.length == (
        "**middle scale**: 2,000 iterations, not 406,250, and narrower networks; errors of 15 to 20 %, 18 % in the "
        "median"
    )
    results[ADAM] = at_scale("middle", ADAM, 1.0, 15.0)
    assert claims.trends("middle").ours == "0 of 1"
    del results[SGD]
    assert claims.trends("middle") is None


def test_the_phenomenon_is_shown_at_every_scale_at_which_it_was_looked_for():
    shown = {"middle": {ADAM: at_scale("middle", ADAM, 30.0, 15.0)}, "small": {}}
    lines = phenomenon.table(shown).splitlines()
    assert lines[2] == "| Adam, L2 1e-3 | cifar10 | the paper | 83.0 / 85.0 / 13.1 | – | – | 406,250 |"
    assert lines[3].startswith("| Adam, L2 1e-3 | cifar10 | middle | 30.0 / ")
    assert len(lines) == 4
