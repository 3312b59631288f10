"""benchmarks/claims.py: the lines of networks that were trained at the paper's length, on made-up results."""

from dataclasses import replace

import claims
import paper
import pytest

from slimnet.reproduction.results import Result


def at_full_length(name: str) -> Result:
    """A result of the small scale that says it is one of the paper's length."""
    known = paper.found("small").results[name]
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
