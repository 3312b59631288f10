"""benchmarks/learning_curves.py: what it keeps of a run's log, by hand."""

import json
from xml.etree import ElementTree

import learning_curves
import pytest

from slimnet.training import Recipe


@pytest.fixture
def run(tmp_path):
    """A run of 128 iterations that logs each: half of its filters die at 65, and are removed at 100."""
    rows = [
        {"iteration": i, "total": 128, "loss": i / 10, "accuracy": 0.5, "sparsity": 0.5 if i > 64 else 0.0}
        | ({"macs": 200} if i == 1 else {})
        | ({"macs_left": 50} if i >= 100 else {})
        for i in range(1, 129)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_curve_is_the_means_of_stretches_of_equal_length(run):
    curve = learning_curves.read_curve(run)
    assert curve["iterations"][:2] == [2, 4]
    assert curve["iterations"][-1] == 128
    assert curve["loss"][0] == pytest.approx((0.1 + 0.2) / 2)
    assert curve["dead"] == [0.0] * 32 + [0.5] * 32
    assert curve["macs_left"] == [1.0] * 49 + [0.25] * 15


def test_a_run_with_another_recipe_has_its_changes_in_its_name(run, tmp_path, monkeypatch):
    monkeypatch.setattr(learning_curves, "OUT", tmp_path / "curves.json")
    for crop in (0, 4):
        recipe = Recipe(arch="basicnet", data="cifar10", iterations=128, shrink_every=500, crop=crop)
        (run / "recipe.json").write_text(recipe.to_json())
        learning_curves.keep(run, "cell")
    kept = json.loads((tmp_path / "curves.json").read_text())["curves"]
    assert list(kept) == ["cell", "cell, images shifted by up to 4 pixels"]


def test_the_table_ends_with_the_last_iteration_and_the_plot_has_every_network(run):
    results = {"curves": {name: learning_curves.read_curve(run) for name in ("one", "two", "three, shifted")}}
    assert learning_curves.table(results).splitlines()[-1] == "| 128 | 50.0 % | 25.0 % | 12.750 | 50.0 % |"
    picture = learning_curves.plot(results)
    ElementTree.fromstring(picture)
    assert {"one", "two", "three", "shifted"} <= set(picture.replace("<", ">").split(">"))
