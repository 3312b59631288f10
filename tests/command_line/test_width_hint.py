"""Where fewer MACs take more time, the hint is to round widths up: by times that are made up."""

import dataclasses
from types import SimpleNamespace

import pytest
from slimnet_cli.output.width_hint import note_missed, note_slow_widths

from slimnet.benchmark import Counts, Latency
from slimnet.surgery.measured_latency import MeasuredLatency

ROUNDS = 60
BUDGET = MeasuredLatency(0.5, 1.3, 1.2, 1.4, 2.0, 2.6, "torch", 1, 1, "a CPU")


def compared(runtime: str = "onnxruntime", *, slim_ms: float = 1.3, macs: int = 50, device: str = "cpu"):
    times = ((1.0,) * ROUNDS, (slim_ms,) * ROUNDS)
    counts = (Counts("dense", 10, 100, {}), Counts("slim", 5, macs, {}))
    return SimpleNamespace(counts=counts, latencies=(Latency(runtime, 1, 1, ("dense", "slim"), times, device),))


@pytest.mark.parametrize(
    ("runtime", "option"),
    [
        ("onnxruntime", "--round auto:onnxruntime "),
        ("torch", "--round auto:torch "),
        ("torch compiled", "--round auto "),
    ],
)
def test_a_network_that_is_slower_with_fewer_macs_gets_the_hint(runtime, option, capsys):
    note_slow_widths(compared(runtime))
    said = capsys.readouterr().err
    assert said.startswith(f"slim has fewer MACs and is slower under {runtime}: its widths are slow there; ")
    assert option in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("found", [{"slim_ms": 0.9}, {"slim_ms": 1.0}, {"macs": 100}, {"device": "cuda"}])
def test_others_do_not(found, capsys):
    note_slow_widths(compared(**found))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("changes", "rounding", "said"),
    [
        ({}, "none", "the slim network is slower than the dense one: its widths are slow there"),
        ({}, "fast under torch", "the slim network is slower than the dense one: its widths are slow there"),
        ({}, "multiples of 8", "ask for less, or let --round auto:torch choose the widths"),
        ({"low": 0.7}, "none", "ask for less, or let --round auto:torch choose the widths"),
        ({"low": 0.4}, "none", ""),
        ({"doubt": "other programs"}, "none", ""),
    ],
)
def test_a_budget_of_latency_that_is_missed_says_what_helps(changes, rounding, said, capsys):
    note_missed(dataclasses.replace(BUDGET, **changes), rounding)
    shown = capsys.readouterr().err
    assert shown.startswith(said)
    assert bool(shown) == bool(said)
