"""The default of slimnet slim: removable channels stay where their removal saves no time, by made-up kernels."""

import json
import os

import bundles
import pytest
import slimnet_cli
import torch
from kernel_prices import blocks_of, fail, made_up

from slimnet.benchmark.runtimes.table import find_runtime
from slimnet.bundle.bundle import read_blueprint
from slimnet.kernel_widths.stored_prices import FOLDER, Key, write_prices
from slimnet.surgery.plan import SurgeryPlan

NETWORK = ("--arch", "basicnet", "--arch-args", json.dumps(bundles.ARGS), "--input-shape", "1,8,8")


@pytest.fixture
def checkpoint(tmp_path) -> str:
    torch.save(bundles.basic_net().state_dict(), tmp_path / "net.pt")
    return str(tmp_path / "net.pt")


@pytest.fixture
def cliffs(tmp_path, monkeypatch) -> None:
    """Kernels that like multiples of 4 under onnxruntime, and of 16 under torch."""
    monkeypatch.setenv("SLIMNET_CACHE", str(tmp_path / "cache"))
    for name, size in (("onnxruntime", 4), ("torch", 16)):
        write_prices(Key.here(find_runtime(name), 1), made_up(blocks_of(size, 3.0), name), fail)


def planned(capsys, *arguments: str) -> SurgeryPlan:
    assert slimnet_cli.run(["slim", *arguments, *NETWORK, "--dry-run", "--json"]) == 0
    return SurgeryPlan.from_json(capsys.readouterr().out)


def is_fast(plan: SurgeryPlan, size: int) -> bool:
    """Whether no wider convolution is clearly faster with blocks of channels: brute force over its widths.

    Linear layers have no blocks.
    """
    price = blocks_of(size, 3.0)
    layers = [layer for layer in plan.layers if layer.kind == "conv"]
    ranges = [range(layer.channels_after, layer.channels_before + 1) for layer in layers]
    return all(each[0] * price(each[0]) <= 1.05 * min(width * price(width) for width in each) for each in ranges)


def test_the_default_is_fast_widths_and_none_gives_the_smallest(checkpoint, cliffs, capsys):
    """Oracle: remainders of the widths, and the number of channels between the two plans."""
    exact, fast = planned(capsys, checkpoint, "--round", "none"), planned(capsys, checkpoint)
    assert not is_fast(exact, 4)
    assert is_fast(fast, 4)
    assert fast.removed_channels
    assert (exact.rounding, fast.rounding) == ("none", "fast under onnxruntime")
    assert fast.kept_for_speed == exact.removed_channels - fast.removed_channels > 0
    on_torch = planned(capsys, checkpoint, "--round", "fast:torch")
    assert on_torch.rounding == "fast under torch"
    assert is_fast(on_torch, 16)


def test_what_was_kept_is_said_in_the_plan_the_result_and_the_bundle(checkpoint, cliffs, capsys, tmp_path):
    kept = planned(capsys, checkpoint).kept_for_speed
    assert kept > 1
    said = f"kept {kept} removable channels: removing them saves no time under onnxruntime; --round none removes them"
    assert slimnet_cli.run(["slim", checkpoint, *NETWORK, "--dry-run"]) == 0
    assert said in capsys.readouterr().out
    assert slimnet_cli.run(["slim", checkpoint, *NETWORK, "-o", str(tmp_path / "slim")]) == 0
    shown = capsys.readouterr().out
    assert said in shown
    plan = read_blueprint(tmp_path / "slim").plan
    assert f"\n{plan.shares}\n" in shown
    assert f"{kept} are kept since their removal saves no time" in str(plan.shares)
    assert (plan.kept_for_speed, plan.rounding) == (kept, "fast under onnxruntime")
    again = ["slim", checkpoint, *NETWORK, "-o", str(tmp_path / "json"), "--json"]
    assert slimnet_cli.run(again) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["kept_for_speed"], document["rounding"]) == (kept, "fast under onnxruntime")
    assert document["shares"] == plan.shares.to_data()


def test_a_budget_is_met_with_widths_that_are_fast_where_its_latency_is_measured(
    checkpoint, cliffs, capsys, monkeypatch
):
    plan = planned(capsys, checkpoint, "--target-macs", "0.7")
    assert plan.rounding == "fast under onnxruntime"
    assert plan.macs_after <= 0.7 * plan.macs_before
    assert is_fast(plan, 4)
    monkeypatch.setattr("slimnet.methods.latency_budget.stopwatch", stopped)
    plan = planned(capsys, checkpoint, "--target-latency", "0.99", "--runtime", "torch")
    assert plan.rounding == "fast under torch"
    assert planned(capsys, checkpoint, "--target-latency", "0.99", "--runtime", "torch", "--round", "8").rounding == (
        "multiples of 8"
    )


class stopped:
    """A stopwatch by which every slim network takes half of the dense one's time."""

    def __init__(self, *given: object) -> None:
        pass

    def __enter__(self):
        return lambda slim: 0.5

    def __exit__(self, *given: object) -> None:
        pass


def test_every_rung_of_a_ladder_has_fast_widths(checkpoint, cliffs, capsys, tmp_path):
    ladder = ["ladder", checkpoint, *NETWORK, "--steps", "0.5", "-o", str(tmp_path / "ladder")]
    assert slimnet_cli.run(ladder) == 0
    for rung in ("exact", "macs-0.5"):
        plan = read_blueprint(tmp_path / "ladder" / rung).plan
        assert plan.rounding == "fast under onnxruntime"
        assert is_fast(plan, 4)
    capsys.readouterr()
    assert slimnet_cli.run([*ladder, "--round", "none"]) == 2
    assert "is a ladder with round 'fast', not None" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["fast:", "fast:onyx", "fast:torch.compile", "faster", "auto:", "0"])
@pytest.mark.parametrize("command", [("slim", "--dry-run"), ("ladder", "-o", "ladder")])
def test_an_unknown_rounding_is_one_line(value, command, checkpoint, capsys):
    assert slimnet_cli.run([*command, checkpoint, *NETWORK, "--round", value]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert f"{value!r} is not a width to round to; give a number such as 16, fast, " in said.err
    assert ("auto" in said.err.partition("give")[2]) == (command[0] == "slim")


def test_a_runtime_that_is_not_installed_is_one_line(checkpoint, cliffs, capsys, monkeypatch):
    openvino = find_runtime("openvino")
    monkeypatch.setattr(type(openvino), "obstacle", lambda self, device: "openvino is not installed; install it")
    assert slimnet_cli.run(["slim", checkpoint, *NETWORK, "--dry-run", "--round", "fast:openvino"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: openvino is not installed; install it"


def test_a_damaged_file_is_measured_again_and_said(checkpoint, cliffs, capsys, monkeypatch, tmp_path):
    measured = made_up(blocks_of(8, 3.0))
    monkeypatch.setattr("slimnet.kernel_widths.measuring.measure_prices", lambda *given: measured)
    for file in (tmp_path / "cache" / FOLDER).iterdir():
        file.write_text("{")
    assert slimnet_cli.run(["slim", checkpoint, *NETWORK, "--dry-run", "--json"]) == 0
    said = capsys.readouterr()
    assert "kernels are measured again" in said.err
    assert is_fast(SurgeryPlan.from_json(said.out), 8)
    assert os.environ["SLIMNET_CACHE"] == str(tmp_path / "cache")
