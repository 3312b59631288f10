"""benchmarks/zoos.py: its table of made-up results, a network that fails, and one that takes too long."""

import time

import pytest
import zoos
from torch import nn
from zoo_networks import Zoo

EXACT = {"result": "exact", "error": 1e-15, "dead": 10, "removed": 6, "at_most": 8, "seconds": 2.0, "source": "a"}
RESULTS = {
    "networks": {
        "timm:one": EXACT | {"kept": {"width": 2, "varying": 2}, "lines": {"a.py:1, split": 2}},
        "timm:two": EXACT | {"seconds": 1.0, "kept": {"width": 4}, "lines": {"a.py:1, split": 3, "b.py:2, view": 1}},
        "timm:three": {"result": "no BatchNorm", "source": "b"},
        "torchvision:four": {"result": "crash", "because": "KeyError: 'x'", "where": "trace.py:7", "source": "c"},
    }
}


def test_a_row_sums_up_a_package_and_causes_and_lines_all_networks():
    """Oracle: by hand."""
    lines = zoos.table(RESULTS).splitlines()
    assert "| timm | 1 | 2 | 2 | 0 | 0 | 0 | 0 | 20 | 12 | 75.0 % | 1.50 |" in lines
    assert "| torchvision | 1 | 1 | 0 | 0 | 0 | 1 | 0 | 0 | 0 | – | – |" in lines
    assert "Listed and not run: timm: no BatchNorm, 1." in lines
    assert "- `torchvision:four` is crash: KeyError: 'x' trace.py:7" in lines
    assert "| a width is a number in the code | 6 | 2 |" in lines
    assert "| a.py:1, split | 5 | 2 |" in lines


def test_a_crash_and_a_network_that_takes_too_long_are_results(monkeypatch):
    def fail(name: str) -> dict:
        if name == "asleep":
            time.sleep(60)
        while name == "busy":
            pass
        raise KeyError(name)

    monkeypatch.setattr(zoos, "measure", fail)
    crash = zoos.measure_elsewhere("quick")
    assert (crash["result"], crash["because"]) == ("crash", "KeyError: 'quick'")
    assert crash["where"].startswith("test_zoos_program.py:")
    monkeypatch.setattr(zoos, "LIMIT_SECONDS", 1)
    assert zoos.measure_elsewhere("busy")["result"] == "over the time limit"
    monkeypatch.setattr(zoos, "WAITING_SECONDS", 0.2)
    assert zoos.measure_elsewhere("asleep")["result"] == "over the time limit"


@pytest.mark.parametrize("sample", [2, 5])
def test_the_packages_take_turns_in_an_order_that_the_seed_draws(sample, monkeypatch):
    packages = {
        "a": Zoo("torch", lambda: ["1", "2", "3"], nn.Module),
        "b": Zoo("torch", lambda: ["4"], nn.Module),
    }
    monkeypatch.setattr(zoos, "ZOOS", packages)
    names = zoos.chosen(["a", "b"], sample, seed=0)
    assert len(names) == len(set(names)) == min(sample, 3) + 1
    assert [name[0] for name in names[:2]] == ["a", "b"]
    assert names == zoos.chosen(["a", "b"], sample, seed=0)


def test_one_network_of_each_source_file_comes_before_the_second_of_any(monkeypatch):
    package = Zoo("torch", lambda: ["a1", "b1", "a2", "c1", "a3", "b2"], nn.Module, lambda name: name[0])
    monkeypatch.setattr(zoos, "ZOOS", {"p": package})
    names = [name.removeprefix("p:") for name in zoos.chosen(["p"], None, seed=0)]
    assert sorted(names) == ["a1", "a2", "a3", "b1", "b2", "c1"]
    assert [sorted({name[0] for name in part}) for part in (names[:3], names[3:5], names[5:])] == [
        ["a", "b", "c"],
        ["a", "b"],
        ["a"],
    ]


def test_a_network_that_is_too_large_is_followed_by_another_of_its_file(monkeypatch):
    package = Zoo("torch", lambda: ["a1", "b1", "a2", "a3", "b2"], nn.Module, lambda name: name[0])
    monkeypatch.setattr(zoos, "ZOOS", {"p": package})
    done: dict[str, dict[str, str]] = {}
    for name in zoos.one_a_file(["p:a1", "p:b1", "p:a2", "p:a3", "p:b2"], done):
        done[name] = {"result": zoos.TOO_LARGE if name == "p:a1" else "exact", "source": zoos.source_of(name)}
    assert list(done) == ["p:a1", "p:b1", "p:a2"]
