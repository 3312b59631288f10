"""benchmarks/gpu.py: steps in processes of their own, within their time, resumed; and the steps themselves on a CPU."""

import argparse
import dataclasses
import json
import sys
import tempfile
import textwrap
import threading

import gpu
import gpu_checks
import gpu_steps
import pytest
import train_throughput

from slimnet.training.recipe.machine_settings import Tuning

STAND_IN = """
    import json, os, sys, time
    step, found = sys.argv[1], sys.argv[sys.argv.index("--found") + 1]
    known = json.load(open(found))
    known["times"] = known.get("times", 0) + 1
    known["environment"] = {"GPU": "none"}
    def write():
        json.dump(known, open(found + ".new", "w")); os.replace(found + ".new", found)
    write()
    if step == "training":
        time.sleep(600)
    if step == "tests":
        known["a test"] = {"error": "it broke"}
        write()
        print("something to say")
        os.abort()
    if step == "latency":
        from importlib.util import find_spec
        known["found"] = [find_spec("slimnet").origin, find_spec("slimnet_cli").origin]
        write()
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Runs gpu.py on stand-ins for the steps; returns the state that it leaves."""
    script = tmp_path / "steps.py"
    script.write_text(textwrap.dedent(STAND_IN))
    monkeypatch.setattr(gpu, "PARTS", script)
    monkeypatch.setattr(gpu, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(gpu, "SHORTEST", 0.5)
    monkeypatch.setitem(gpu.STEPS, "training", 6.0)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "out"), *arguments])
        gpu.main()
        return json.loads((tmp_path / "out" / gpu.STATE).read_text())

    return run


def test_each_step_ends_in_its_own_way_and_the_others_run(program, capsys):
    steps = program("--steps", "correctness", "training", "tests", "throughput")["steps"]
    assert {name: step["status"] for name, step in steps.items() if step["status"] != "not run"} == {
        "correctness": "done",
        "training": "out of time",
        "tests": "failed",
        "throughput": "done",
    }
    assert steps["training"]["results"]["times"] == 1, "what it had found by then is kept"
    assert "something to say" in steps["tests"]["error"]
    assert 5.9 < steps["training"]["seconds"] < 60
    assert "a test: it broke" in capsys.readouterr().out


def test_a_second_run_goes_on_where_the_first_stopped(program):
    program("--steps", "correctness", "tests")
    known = program("--steps", "correctness", "tests", "throughput")
    assert known["steps"]["correctness"]["results"]["times"] == 1, "a finished step is not run again"
    assert known["steps"]["tests"]["results"]["times"] == 2, "one that failed is, with what it knew"
    assert known["environment"] == {"GPU": "none"}
    assert len(known["runs"]) == 2


def test_a_signal_to_end_leaves_what_is_known_and_no_process(program, monkeypatch, tmp_path):
    asked, look = [], gpu.Child.results

    def results(child):
        asked.append(child)
        return gpu.stopped() if len(asked) == 1 else look(child)

    monkeypatch.setattr(gpu.Child, "results", results)
    with pytest.raises(SystemExit):
        program("--steps", "training")
    assert json.loads((tmp_path / "out" / gpu.STATE).read_text())["steps"]["training"]["status"] == "stopped"
    assert asked[0].process.poll() is not None


def test_no_step_begins_when_the_time_is_up(program):
    assert program("--budget", "8s", "--reserve", "7.9")["steps"]["correctness"]["status"] == "not run"


def test_steps_find_slimnet_and_its_command_where_they_are_not_installed(program):
    step = program("--steps", "latency")["steps"]["latency"]
    assert step["status"] == "done", step
    library, commands = step["results"]["found"]
    assert library == str(gpu.ROOT / "slimnet" / "__init__.py")
    assert commands.startswith(tempfile.gettempdir())


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("9m", 540), ("1h", 3600)])
def test_times_are_read(text, expected):
    assert gpu.seconds_in(text) == expected


@pytest.mark.parametrize("text", ["9", "m", "0s", "nine minutes"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no time"):
        gpu.seconds_in(text)


@pytest.fixture(scope="module")
def subject():
    return gpu_checks.Subject("basicnet", "cpu", tiny=True)


@pytest.mark.parametrize("check", [each for each in gpu_checks.CHECKS if each not in gpu_checks.SLOW])
def test_every_check_passes_on_a_cpu(subject, check):
    found = check(subject)
    assert "skipped" in found or "speedup" in found or found["holds"], found
    json.dumps(found)


def test_a_network_that_is_wrong_does_not_pass(subject):
    wrong = gpu_checks.Subject("basicnet", "cpu", tiny=True)
    next(iter(wrong.slimmed.model.parameters())).data.mul_(1.5)
    assert not gpu_checks.tf32(wrong)["holds"]


def test_rounding_alone_is_no_error_and_more_than_that_is():
    assert gpu_checks.judged(0.2, 5e-2, rounding=0.15)["holds"]
    assert not gpu_checks.judged(0.2, 5e-2, rounding=0.05)["holds"]
    assert not gpu_checks.judged(None, 5e-2)["holds"]


def test_plans_are_the_same_whose_sums_were_added_up_in_another_order(subject):
    plan = subject.slimmed.plan
    first = plan.folds[0]
    for factor, same in ((1 + 1e-15, True), (1 + 1e-3, False)):
        changed = dataclasses.replace(first, increments=tuple(factor * each for each in first.increments))
        assert gpu_checks.same_plan(plan, dataclasses.replace(plan, folds=(changed, *plan.folds[1:]))) is same
    assert not gpu_checks.same_plan(plan, dataclasses.replace(plan, folds=plan.folds[1:]))
    assert not gpu_checks.same_plan(plan, dataclasses.replace(plan, cuts=plan.cuts[1:]))


def test_a_run_that_leaves_out_a_drop_or_the_weight_decay_is_distinguished(monkeypatch):
    """Such as a captured step in which they do not count; the same run with other rounding is not."""
    monkeypatch.setattr(train_throughput, "IMAGES", 64)
    plan = gpu_checks.recipe(16)
    run, limit = gpu_checks.trained(plan, "cpu"), gpu_checks.WAY["fp32"]
    for wrong in ({"drops": ()}, {"weight_decay": 0.0}):
        other = gpu_checks.trained(dataclasses.replace(plan, **wrong), "cpu")
        assert run.apart(other) > 5 * limit
    assert run.apart(gpu_checks.trained(plan, "cpu", threads=1)) < limit / 5


def steps_main(monkeypatch, step, found):
    monkeypatch.setattr(sys, "argv", ["gpu_steps.py", step, "--device", "cpu", "--found", str(found)])
    return gpu_steps.main()


def test_parts_of_training_run_and_are_not_run_again(monkeypatch, tmp_path):
    monkeypatch.setattr(train_throughput, "IMAGES", 64)
    found = tmp_path / "found.json"
    found.write_text(json.dumps({"resumed bf16": {"holds": True, "marked": 1}}))
    assert steps_main(monkeypatch, "training", found) == 0
    results = json.loads(found.read_text())
    assert results["resumed fp32"]["bit_for_bit"]
    assert results["as on the CPU"]["error_relative"] == 0
    assert results["resumed bf16"] == {"holds": True, "marked": 1}
    assert "skipped" in results["captured adam"]
    assert results["environment"]["torch"]


def test_throughput_is_measured_with_every_option_that_its_program_has(monkeypatch, tmp_path):
    monkeypatch.setattr(train_throughput, "IMAGES", 64)
    monkeypatch.setattr(train_throughput, "matmul_rate", lambda *_: 1e9)
    assert steps_main(monkeypatch, "throughput", tmp_path / "found.json") == 0
    (row,) = [each for each in json.loads((tmp_path / "found.json").read_text()).values() if "ratio" in each]
    assert row["ratio"]["median"] > 0
    options = argparse.Namespace(device="cuda")
    assert len({name for name, _ in gpu_steps.throughput(options)}) == len(gpu_steps.THROUGHPUT)


def test_a_run_of_several_that_never_gets_ready_is_not_waited_for_without_end(monkeypatch):
    """Processes are stood in for by threads, and one that fails by one that ends at once."""
    stand_in = argparse.Namespace(Barrier=threading.Barrier, Process=threading.Thread)
    monkeypatch.setattr(train_throughput.multiprocessing, "get_context", lambda _: stand_in)
    monkeypatch.setattr(train_throughput, "one_of_several", lambda *_: None)
    monkeypatch.setattr(train_throughput, "PATIENCE", 0.1)
    with pytest.raises(threading.BrokenBarrierError):
        train_throughput.several(gpu_checks.recipe(16), "cpu", Tuning(), 2, 2)


@pytest.mark.parametrize("wait", [train_throughput.finished, gpu_steps.usable])
def test_the_gpu_that_is_waited_for_is_the_one_that_works(wait, monkeypatch):
    waited = []
    monkeypatch.setattr(train_throughput.torch.cuda, "synchronize", lambda device=None: waited.append(device))
    wait("cuda:1")
    assert waited == ["cuda:1"]


def test_a_part_that_raises_is_written_down_and_makes_the_step_fail(monkeypatch, tmp_path):
    def broken(*_):
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr(gpu_checks, "resumed", broken)
    monkeypatch.setattr(gpu_checks, "as_on_the_cpu", lambda *_: {"holds": True})
    found = tmp_path / "found.json"
    assert steps_main(monkeypatch, "training", found) == 1
    results = json.loads(found.read_text())
    assert results["resumed fp32"]["error"] == "ZeroDivisionError: first line"
    assert results["as on the CPU"]["holds"]


def test_cells_say_what_they_need(monkeypatch, tmp_path):
    assert steps_main(monkeypatch, "cells", tmp_path / "found.json") == 1
    assert "pass --data-root" in json.loads((tmp_path / "found.json").read_text())["reproduce"]["error"]


def test_cells_that_are_left_make_the_step_go_on_next_time():
    assert gpu_steps.of_report({"cells": [{"ours": {}}, {"ours": None}]})["error"] == "1 of 2 cells are left"
    assert "error" not in gpu_steps.of_report({"cells": [{"ours": {}}]})


def test_the_table_shows_errors_speeds_and_latencies():
    latency = {"median_ms": [2.0, 1.0], "device": "cuda", "runtime": "torch", "batch": 1, "speedup": [{}, {"value": 2}]}
    speed = {"images_per_second": {"plain": 100, "slimnet": 250}, "ratio": {"median": 2.5}}
    checks = {"a: fp32": {"error_relative": 2e-6, "tolerance": 1e-4, "holds": True}, "b: fp32": {"error": "it broke"}}
    checks["c: fp32"] = {"error_relative": 2e-3, "tolerance": 1e-4, "holds": False}
    results = {"correctness": checks, "throughput": {"basicnet": speed}, "latency": {"net": {"latencies": [latency]}}}
    text = gpu.table({"steps": {name: {"status": "done", "results": each} for name, each in results.items()}})
    assert "| fp32 | 2 | 2.0e-03 | 0.0001 | 1 |" in text
    assert gpu.worst([checks["c: fp32"], {"error_relative": None, "tolerance": 0.1}]) == ("none to compare", "0.1")
    assert "| basicnet | 100 | 250 | 2.50 |" in text
    assert "| net | cuda, torch, batch 1 | 2.000 | 1.000 | 2.00 |" in text
