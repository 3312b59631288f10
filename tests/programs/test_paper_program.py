"""benchmarks/paper.py: results of several reproductions, kept side by side or joined."""

import re
from dataclasses import replace

import paper

from slimnet.reproduction import catalogue, results
from slimnet.reproduction.scales import recipe_of
from slimnet.reproduction.variation import Variation


def test_results_of_another_recipe_are_kept_beside_the_usual_ones(tmp_path, monkeypatch):
    """A recipe that shifts images or pools elsewhere has a folder and a part of the page of its own."""
    monkeypatch.setattr(paper, "RESULTS", tmp_path / "kept")
    monkeypatch.setattr(paper, "PLAN", tmp_path / "plan.json")
    cell = catalogue.entry("table4", "32-0.25x", "cifar10")
    where = {"Processor": "P", "Device": "CPU", "Threads": "1"}
    for folder, variation, error in (
        ("a", Variation(), 40.0),
        ("b", Variation(crop=4, pool_after=(1, 2, 4), precision="bf16"), 30.0),
        ("c", Variation(crop=4, precision="fp32"), 20.0),
    ):
        readings = dict.fromkeys(catalogue.READINGS, 1.0) | {"layers": (1.0,), "error": error}
        run = results.Run(0, readings, (), (2, 1), 0, 0.0, 1.0, 1.0, where)
        results.add(tmp_path / folder / "results", [cell.name], "full", recipe_of(cell, "full", 0, variation), run)
        paper.keep(tmp_path / folder)
    assert [path.name for path in paper.other_recipes()] == ["crop4", "crop4-pool124"]
    page = paper.page()
    parts = re.findall(r"^### At full scale(.*)$", page, re.MULTILINE)
    assert parts == [
        "",
        ", images shifted by up to 4 pixels",
        ", images shifted by up to 4 pixels, pooling after C1, C2, C4",
    ]
    errors = re.findall(r"1\.00 / 1\.00 / (\d+\.\d) \|.*?\| 1 \| 406,250(.*?) \|", page)
    assert errors == [
        ("40.0", ""),
        ("20.0", ", images shifted by up to 4 pixels"),
        ("30.0", ", bf16, images shifted by up to 4 pixels, pooling after C1, C2, C4"),
    ]
    assert "| table4 | 6 | 1 | 0 | 0 | 5 | 0 |" in page


def test_seeds_from_two_folders_join_and_those_of_another_recipe_go(tmp_path, monkeypatch):
    monkeypatch.setattr(paper, "RESULTS", tmp_path / "kept")
    recipe = recipe_of(catalogue.entry("table4", "64-1x", "cifar10"), "small")
    where = {"Processor": "P", "Device": "CPU", "Threads": "1"}
    for folder, seed, rate in (("a", 0, recipe.lr), ("b", 1, recipe.lr), ("c", 2, 0.5)):
        readings = dict.fromkeys(catalogue.READINGS, 1.0) | {"layers": (1.0,)}
        run = results.Run(seed, readings, (), (2, 1), 0, 0.0, 1.0, 1.0, where)
        results.add(tmp_path / folder / "results", ["x"], "small", replace(recipe, lr=rate, seed=seed), run)
    (kept,) = {path for folder in ("a", "b") for path in paper.keep(tmp_path / folder)}
    assert results.read(kept).seeds == (0, 1)
    paper.keep(tmp_path / "c")
    assert results.read(kept).seeds == (2,)
