"""benchmarks/learning_curves.py: what it keeps of a run's log, by hand."""

import json
from xml.etree import ElementTree

import learning_curves
import pytest


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


def test_the_table_ends_with_the_last_iteration_and_the_plot_has_every_network(run):
    results = {"curves": {"one": learning_curves.read_curve(run), "two": learning_curves.read_curve(run)}}
    assert learning_curves.table(results).splitlines()[-1] == "| 128 | 50.0% | 25.0% | 12.750 | 50.0% |"
    picture = learning_curves.plot(results)
    ElementTree.fromstring(picture)
    assert {"one", "two"} <= set(picture.replace("<", ">").split(">"))
