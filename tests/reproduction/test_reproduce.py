"""slimnet reproduce as a person runs it: a plan, a budget, tiny runs that go on, a report; and what it refuses."""

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import paper
import phenomenon
import pytest
import slimnet_cli
from pages import Tags, check_ids
from slimnet_cli.progress.reproduction_run import moved

from slimnet import benchmark
from slimnet.errors import UsageError
from slimnet.reproduction import catalogue, results, timing
from slimnet.reproduction.scales import recipe_of
from slimnet.reproduction.trends import cells


def write_data(root, names=("cifar10", "cifar100")):
    """Data sets of a few random images in the layout that people have them in."""
    root.mkdir()
    random = np.random.default_rng(0)
    for name in names:
        classes = catalogue.datasets()[name].classes
        arrays = {}
        for split, count in (("train", 240), ("test", 120)):
            arrays[f"x_{split}"] = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
            arrays[f"y_{split}"] = np.arange(count) % classes
        np.savez(root / f"{name}.npz", classes=np.asarray([f"class {n}" for n in range(classes)]), **arrays)
    return root


@pytest.fixture(scope="module")
def short():
    """The small scale, so short that a run is over at once."""
    with pytest.MonkeyPatch.context() as patch:
        small = catalogue.document("experiments.json")["small"]
        images = {**small["images"], "train": 60, "test": 40}
        for name, value in {"iterations": 4, "images": images, "width": 0.05, "first_width": 0.1}.items():
            patch.setitem(small, name, value)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Both data sets."""
    return write_data(tmp_path_factory.mktemp("images") / "data")


@pytest.fixture
def place(tmp_path, data, short):
    """A folder with data, in which nothing has been run."""
    (tmp_path / "data").symlink_to(data)
    return tmp_path


@pytest.fixture(scope="module")
def world(tmp_path_factory, data, short):
    """A folder with data, in which a table and two figures have been run, the table with a second seed."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "data").symlink_to(data)
    assert reproduce(folder, "table4", "fig5", "fig2") == 0
    assert reproduce(folder, "table4", "--seeds", "2") == 0
    return folder


def reproduce(world, *arguments):
    own = ["-o", str(world / "out"), "--data-root", str(world / "data"), "--scale", "small"]
    return slimnet_cli.run(["reproduce", *arguments, *own, "--threads", "1", "--device", "cpu"])


def runs(world):
    """The state of every run, from the table in which a sweep keeps them."""
    with sqlite3.connect(world / "out" / "sweep.sqlite") as table:
        return dict(table.execute("SELECT varied, state FROM cells").fetchall())


def test_a_plan_lists_every_cell_and_runs_nothing(place, capsys):
    assert reproduce(place, "table4", "table10", "--dry-run", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [cell["table"] for cell in printed["cells"]] == ["table4"] * 6 + ["table10"] * 6
    assert printed["runs"] == 10
    assert all(cell["seconds"] > 0 for cell in printed["cells"] if cell["runs"])
    assert [cell["row"] for cell in printed["cells"] if not cell["runs"]] == ["Liu et al. 2017"] * 2
    assert printed["seconds"] == pytest.approx(sum(cell["seconds"] or 0 for cell in printed["cells"]))
    assert not (place / "out").exists()


def test_single_networks_are_rows_of_their_tables(place, capsys):
    """Each is trained once, though its recipe is in other tables as well, and the report has no other rows."""
    names = ("table4-32-0.25x-cifar100", "table3-l2-1e-4-batch-40-cifar10")
    assert reproduce(place, *names) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ") and "CIFAR" in line]
    assert [line.split(" | ")[0] for line in rows] == ["| L2 1e-4, batch 40", "| 32-0.25x"]
    assert len(runs(place)) == 2
    assert reproduce(place, "table4-32-0.25x-cifar10x") == 2
    assert "did you mean table4-32-0.25x-cifar10 or " in capsys.readouterr().err


def test_a_plan_of_runs_that_shrink_counts_the_filters_that_the_paper_has_left(place, capsys, monkeypatch):
    """Oracle: a step that takes as long as the first layer is wide; 4 iterations; filters are dead after 1."""
    monkeypatch.setattr(timing, "step_seconds", lambda recipe, *_, **__: widths_of(recipe)[0])
    monkeypatch.setattr(timing, "DYING", 1)
    seconds = {}
    for options in ([], ["--shrink"]):
        assert reproduce(place, "table4", "--dry-run", "--json", *options) == 0
        cells = json.loads(capsys.readouterr().out)["cells"]
        seconds[bool(options)] = {cell["cell"]: cell["seconds"] for cell in cells}
    for entry in catalogue.tables()["table4"].entries:
        width = widths_of(recipe_of(entry, "small"))[0]
        left = max(1, round(width * (1 - entry.paper["gamma"] / 100)))
        assert seconds[False][entry.name] == 4 * width
        assert seconds[True][entry.name] == width + 3 * left
    assert seconds[True]["table4-64-1x-cifar10"] < seconds[False]["table4-64-1x-cifar10"]


def widths_of(recipe):
    """The widths of the convolutions of a recipe of the small scale."""
    return list(recipe.arch_args["widths"])


@pytest.mark.parametrize(
    ("options", "mark", "kind"),
    [
        (["--shrink"], "shrinking", "removed dead filters during training (--shrink)"),
        (["--precision", "fp32"], "fp32", "were trained in fp32"),
        (["--crop", "2"], "images shifted by up to 2 pixels", "shifted images by up to 2 pixels (--crop 2)"),
        (["--pool-after", "4, 1,2"], "pooling after C1, C2, C4", "pooled after C1, C2, C4"),
    ],
)
def test_runs_of_another_kind_are_marked_and_do_not_mix_with_others(options, mark, kind, place, capsys):
    """The small scale trains in bfloat16, without shrinking, unless options say otherwise."""
    assert reproduce(place, "table4-32-0.25x-cifar10", "--budget", "0.01s", *options, "--json") == 0
    assert reproduce(place, "table4-32-0.25x-cifar10", *options) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ") and "small: " in line]
    assert len(lines) == 1
    assert all(f"| 4, {mark} |" in line for line in lines)
    found = results.read_all(place / "out" / "results", "small")
    shrinking = "--shrink" in options
    assert {each.variation.shrink_every for each in found.values()} == {500 if shrinking else 0}
    assert {each.variation.precision for each in found.values()} == {"fp32" if "--precision" in options else "bf16"}
    assert f"× 4, {mark} on" in (place / "out" / "report.html").read_text()
    assert reproduce(place, "table4-32-0.25x-cifar10") == 2
    assert f"runs that {kind}; reproduce the others in another folder" in capsys.readouterr().err
    assert len(runs(place)) == 1


@pytest.mark.parametrize("busy", [0.0, 1.5])
def test_a_plan_made_on_a_busy_machine_says_so(busy, place, capsys, monkeypatch):
    where = replace(benchmark.environment(), other_work=busy)
    monkeypatch.setattr(benchmark, "environment", lambda: where)
    monkeypatch.setattr(timing, "step_seconds", lambda *_, **__: 1.0)
    assert reproduce(place, "table4", "--dry-run") == 0
    assert ("other programs keep 1.5 cores busy" in capsys.readouterr().err) == (busy > 0)


def test_a_plan_for_people_says_what_is_missing(place, capsys):
    assert reproduce(place, "table5", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "tiny-imagenet-200/" in printed
    assert "4 runs cover these 4 cells" in printed


def test_the_networks_behind_the_trends_go_by_one_name(place, capsys):
    assert reproduce(place, "trends", "table4", "--dry-run", "--json", "--seeds", "2") == 0
    printed = json.loads(capsys.readouterr().out)
    names = [cell["cell"] for cell in printed["cells"]]
    assert len(names) == len(set(names))
    assert {each.name for each in cells()} <= set(names)
    assert "table4-64-1x-cifar10" in names
    assert all(cell["runs"] == 2 for cell in printed["cells"])


def test_a_budget_is_begun_with_what_is_worth_most_and_the_rest_follows(place, capsys):
    """Then nothing is done twice: the runs of the first call keep their models, and a third call trains none."""
    assert reproduce(place, "table4", "--budget", "0.01s") == 0
    begun = capsys.readouterr()
    assert "1 of 6 runs" in begun.err
    assert "some runs are not finished; the same command resumes them" in begun.err
    assert reproduce(place, "table4", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    states = runs(place)
    assert len(states) == 6
    assert set(states.values()) == {"done"}
    assert all(cell["ours"] is not None for cell in printed["cells"])
    for cell in printed["cells"]:
        assert cell["difference"]["gamma"] == pytest.approx(cell["ours"]["gamma"] - cell["paper"]["gamma"])
        assert (cell["scale"], cell["seeds"], cell["iterations"]) == ("small", [0], 4)
    models = {path: path.stat().st_mtime_ns for path in (place / "out" / "runs").glob("*/model.pt")}
    assert len(models) == 6
    assert reproduce(place, "table4") == 0
    assert models == {path: path.stat().st_mtime_ns for path in (place / "out" / "runs").glob("*/model.pt")}


def test_a_run_that_stands_in_two_tables_is_made_once(world):
    """Of the four batch sizes in figure 5 one is table 4's ordinary run; figure 2 has four of its own."""
    files = [json.loads(path.read_text()) for path in (world / "out" / "results").glob("*.json")]
    assert len(files) == 6 + 3 + 4
    assert len(runs(world)) == len(files) + 6
    shared = [each for each in files if "table4-64-1x-cifar10" in each["names"]]
    assert len(shared) == 1
    assert {"table1-adam-l2-1e-4-cifar10", "table3-l2-1e-4-batch-40-cifar10"} <= set(shared[0]["names"])


def test_another_seed_joins_the_first(world, capsys):
    assert reproduce(world, "table4", "--seeds", "2", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert all(cell["seeds"] == [0, 1] for cell in printed["cells"])


def test_every_number_of_the_small_scale_says_so(world, capsys):
    assert reproduce(world, "table4", "fig5") == 0
    text = capsys.readouterr().out
    assert text == (world / "out" / "report.md").read_text()
    assert text.startswith("Small scale, which is not the paper's")
    lines = [line for line in text.splitlines() if line.startswith("| ") and "CIFAR" in line]
    assert len(lines) == 6
    assert all("| small: " in line for line in lines)
    trends = [line for line in text.splitlines() if "**holds**" in line or "**does not hold**" in line]
    assert trends
    assert all("(small, " in line for line in trends)
    page = (world / "out" / "report.html").read_text()
    check_ids(page)
    parsed = Tags(page)
    assert not parsed.open
    assert "L2 1e-4, batch 160" in parsed.text
    assert {each.get("id") for _, each in parsed.found} >= {"table4", "fig5"}


def test_figure_2_is_drawn_from_what_the_runs_kept(world, capsys):
    assert reproduce(world, "fig2") == 0
    capsys.readouterr()
    parsed = Tags((world / "out" / "report.html").read_text())
    assert "fig2" in {each.get("id") for _, each in parsed.found}


def test_a_history_without_the_layer_is_refused_in_one_line(world):
    """As where a network of fewer layers was trained in that folder."""
    folder = next((world / "out" / "runs").glob("*/history")).parent
    assert moved(folder, "a row", 1).label == "a row"
    with pytest.raises(UsageError, match="no history of γ and β in layer 99; delete the folder to train it again"):
        moved(folder, "a row", 99)


def test_a_run_that_fails_leaves_the_others_their_turn(place, capsys, monkeypatch):
    """A learning rate at which one optimiser diverges; the other row has its result, and the exit code is 1."""
    small = catalogue.document("experiments.json")["small"]
    monkeypatch.setitem(small, "lr", {"amsgrad": 1e30})
    assert reproduce(place, "supp-table2") == 1
    captured = capsys.readouterr()
    assert "supp-table2-amsgrad-relu-l2-1e-2-cifar100, seed 0 failed: the loss became" in captured.err
    states = list(runs(place).values())
    assert (states.count("failed"), states.count("done")) == (3, 5)
    assert "| AMSGrad, ReLU, L2 1e-4 | CIFAR-100 |" in captured.out


def test_the_end_of_a_budget_lets_the_run_at_hand_save_and_leave(place, capsys, monkeypatch):
    """The one run, which would take hours, waits to go on from its checkpoint. The time is up once it has reported."""

    class Timer(threading.Thread):
        def __init__(self, seconds: float, end: Callable[[], None]) -> None:
            super().__init__(daemon=True)
            self.seconds, self.end = seconds, end

        def run(self) -> None:
            assert self.seconds == 2
            while not any(path.stat().st_size for path in (place / "out" / "runs").glob("*/metrics.jsonl")):
                time.sleep(0.02)
            self.end()

        def cancel(self) -> None:
            pass

    monkeypatch.setattr(threading, "Timer", Timer)
    monkeypatch.setitem(catalogue.document("experiments.json")["small"], "iterations", 1_000_000)
    assert reproduce(place, "table4", "--budget", "2s") == 0
    assert "the same command resumes" in capsys.readouterr().err
    assert list(runs(place).values()) == ["waiting"]
    assert len(list((place / "out" / "runs").glob("*/checkpoints/*.pt"))) == 1


def test_results_are_taken_over_and_make_a_page(world, tmp_path, monkeypatch):
    """benchmarks/README.md says of every table how much of it was run, at which scale, and how long it would take."""
    monkeypatch.setattr(paper, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paper, "PLAN", tmp_path / "plan.json")
    machine = {"Device": "CPU", "Processor": "P", "Threads": "1", "torch": "2", "Measured": "today"}
    cells = [
        {"cell": "table4-64-1x-cifar10", "seconds": 9000.0},
        {"cell": "table10-liu-et-al.-2017-cifar10", "seconds": None},
    ]
    estimate = {"machine": machine, "runs": 1, "seconds": 9000.0, "cells": cells}
    (tmp_path / "estimate.json").write_text(json.dumps(estimate))
    assert paper.keep_plan(tmp_path / "estimate.json") == paper.PLAN
    kept = paper.keep(world / "out")
    assert len(kept) == 13
    assert paper.keep(world / "out") == []
    assert all(paper.read(path).seeds == paper.read(world / "out" / "results" / path.name).seeds for path in kept)
    page = paper.page()
    assert "| table4 | 6 | 0 | 0 | 6 | 0 | 0 |" in page
    assert "| table10 | 6 | 0 | 0 | 0 | 4 | 2 |" in page
    assert "CPU, P, 1 thread, torch 2, today. All 1 runs: 2.5 h." in page
    assert "| table4 | CIFAR-10 | 2.5 h |" in page
    assert "### At small scale" in page
    assert "median (and most) of the runs: basicnet at batch 20 " in page
    assert "### At full scale" not in page
    assert "| 32-0.25x | CIFAR-100 | 0.0 / 0.51 / 2.05 / 43.4 | small: " in page
    assert "| L2 1e-4, batch 160 |" not in phenomenon.page()


@pytest.mark.sweep
def test_several_at_a_time_are_processes_of_their_own_with_the_same_results(world, place, capsys):
    """Oracle: the readings of the same runs, one after the other in this process."""
    assert reproduce(place, "table4", "--concurrent", "2") == 0
    capsys.readouterr()
    for path in (place / "out" / "results").glob("*.json"):
        both = [json.loads(each.read_text()) for each in (path, world / "out" / "results" / path.name)]
        assert both[0]["runs"][0]["readings"] == both[1]["runs"][0]["readings"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tabel1"], "did you mean table1 or "),
        (["table1", "--budget", "soon"], "say it as 90s, 25m"),
        (["table1", "--seeds", "0"], "--seeds"),
        ([], "Missing argument"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(world, arguments, message, capsys):
    assert reproduce(world, *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_another_scale_is_refused_with_those_that_there_are(capsys):
    assert slimnet_cli.run(["reproduce", "table1", "--scale", "medium"]) == 2
    assert "'full', 'middle', 'small'" in capsys.readouterr().err


def test_without_data_it_says_what_to_provide(world, tmp_path, capsys):
    arguments = ["reproduce", "table5", "--data-root", str(tmp_path), "-o", str(tmp_path / "out")]
    assert slimnet_cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert "TinyImageNet is not in" in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
