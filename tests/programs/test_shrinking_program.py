"""The program that measures what shrinking saves: what it trains, and its tables."""

import argparse
import copy
import dataclasses
import json

import pytest
import shrinking
import torch
from runs import TINY, images, recipe
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def raced():
    """A tiny recipe, in which nothing dies, with the course of both runs."""
    return shrinking.race(recipe(arch_args=TINY, iterations=250, l2=1e-3), 50, images(), 1)


def test_both_runs_are_of_one_recipe_and_whole(raced):
    assert raced["recipe"]["shrink_every"] == 0
    assert raced["shrink_every"] == 50
    for kind in ("dense", "shrinking"):
        assert raced[kind]["seconds"] > 0
        assert [point[0] for point in raced[kind]["course"]][:3] == [100, 200, 250]
    assert raced["dense"]["test_error"] == raced["shrinking"]["test_error"]
    assert json.loads(json.dumps(raced)) == raced


def test_the_table_has_the_means_over_seeds(raced):
    first, second = copy.deepcopy(raced), copy.deepcopy(raced)
    for run, dense in ((first, 4.0), (second, 8.0)):
        run["dense"]["seconds"], run["shrinking"]["seconds"] = dense, 2.0
    machine = {"Processor": "P", "Vector instructions": "V"}
    (line,) = shrinking.runs_table({"a, seed 0": first, "a, seed 1": second}, machine).splitlines()[2:]
    assert line.startswith("| a, 1 thread | 2 | 6 | 2 | 3.00 (2.00 to 4.00) | 100 % |")
    assert line.endswith("| P, V |")
    first["environment"] = machine | {"Processor": "Q"}
    (line,) = shrinking.runs_table({"a, seed 0": first}, machine).splitlines()[2:]
    assert line.endswith("| Q, V |")


def test_efficiency_is_the_gain_in_time_over_that_in_macs():
    row = {"widths": [], "macs": 100, "seconds": [0.1] * 4}
    shares = {str(share): row for share in shrinking.SHARES} | {"0.5": row | {"macs": 25, "seconds": [0.05] * 4}}
    lines = shrinking.steps_table({"threads": 2, "shares": shares}).splitlines()
    assert "2 threads" in lines[0]
    assert "| 0.5 | 0.0 M | 25.0 % | 50.0 (50.0 to 50.0) | 2.00 | 0.50 |" in lines


def test_steps_are_those_of_networks_with_a_share_of_the_filters(monkeypatch):
    monkeypatch.setattr(shrinking, "WIDTHS", {"64-1x": (4, 4, 4, 8, 8, 8, 8)})
    monkeypatch.setattr(shrinking, "SHARES", (1.0, 0.5))
    found = shrinking.share_times(1, 2, 1)
    assert found["shares"]["0.5"]["widths"] == [2, 2, 2, 4, 4, 4, 4]
    assert found["shares"]["0.5"]["macs"] < found["shares"]["1.0"]["macs"]
    assert all(len(row["seconds"]) == 2 for row in found["shares"].values())


def test_a_run_takes_as_long_as_its_steps_at_the_widths_that_it_had(tmp_path, monkeypatch):
    """Oracle: by hand. 100 iterations of 0.2 s, then 100 of 0.15 s, of which 50 are logged twice."""
    (tmp_path / "recipe.json").write_text(recipe(l2=1e-3).to_json())
    rows = [(100, None), (150, 75), (150, 75), (200, 75)]
    lines = [{"iteration": at, "total": 400, "macs": 100, "sparsity": 0.5} for at, _ in rows]
    for line, (_, left) in zip(lines, rows, strict=True):
        line |= {} if left is None else {"macs_left": left}
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "history").mkdir()
    scales = {f"scale/features.bn{number}": torch.tensor([1.0, 0.0, 2.0]) for number in range(1, 8)}
    save_file(scales | {"scale/classifier.bn1": torch.ones(4)}, tmp_path / "history" / "00000150.safetensors")

    def steps(networks: dict, *_: object) -> dict:
        assert networks["150"] == {"widths": [2] * 7, "hidden": 4}
        return {name: {"macs": macs, "seconds": [s] * 4} for name, macs, s in (("0", 100, 0.2), ("150", 50, 0.1))}

    monkeypatch.setattr(shrinking, "step_times", steps)
    options = argparse.Namespace(threads=1, repeats=1, steps=1)
    found = shrinking.course_time(tmp_path, options)
    assert found["dense_seconds"] == pytest.approx(200 * 0.2)
    assert found["seconds"] == pytest.approx(100 * 0.2 + 100 * 0.15)
    line = shrinking.courses_table({"BasicNet": found}).splitlines()[2]
    first, *numbers = line.strip("| ").split(" | ")
    assert first == "BasicNet, L2 0.001, fp32, 1 thread"
    assert numbers == ["200 of 400", "0.01", "0.01", "1.14", "1.45", "200, 100", "75.0 %", "50.0 %"]


def test_every_whole_run_is_a_recipe_that_shrinks():
    for dense, every in shrinking.runs_of("cifar10").values():
        assert not dense.shrink_every
        assert dataclasses.replace(dense, shrink_every=every).shrink_every == every
