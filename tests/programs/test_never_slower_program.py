"""benchmarks/never_slower.py: what its tables say of made-up measurements."""

import json

import never_slower
import pytest

FACTS = {
    "dense": {"macs": 100, "error": 0.0, "kept": 0},
    "none": {"macs": 25, "error": 1e-6, "kept": 0},
    "fast:onnxruntime": {"macs": 50, "error": 1e-5, "kept": 7},
}
PRICES = {"widths": list(range(1, 65)), "prices": [1.0] * 63 + [0.5]}


def interval(low: float, high: float) -> dict:
    return {"value": (low + high) / 2, "low": low, "high": high}


def measured(none: tuple[float, float], fast: tuple[float, float]) -> dict:
    return {"dense_ms": 8.0, "none": interval(*none), "fast": interval(*fast)}


def results(*rows: list[dict]) -> dict:
    cells = {
        f"net {number}": {"facts": FACTS, "places": {"onnxruntime, 1 thread, batch 1": row}}
        for number, row in enumerate(rows)
    }
    return {"cells": cells, "prices": {"onnxruntime": {"spatial": PRICES}}}


def test_a_cell_is_slower_that_is_so_both_times():
    """Oracle: by hand. The speed-up 1.8 at half of the MACs is an efficiency of 0.9."""
    slow, unsure, quick = (0.8, 0.9), (0.9, 1.1), (1.7, 1.9)
    found = results(
        [measured(slow, quick), measured(slow, quick)],
        [measured(slow, slow), measured(unsure, quick)],
        [measured(slow, slow), measured(slow, (0.7, 0.85))],
    )
    lines = never_slower.table(found).splitlines()
    assert "| onnxruntime, 1 thread, batch 1 | 3 | 2 | 1 | 0.66 | 2 |" in lines
    line = "| net 0 | 8.0 | 4.00 | 0.85 (0.80 to 0.90) | 7 | 2.00 | 1.80 (1.70 to 1.90) | 1.80 (1.70 to 1.90) | 0.90 |"
    assert line in lines
    assert lines[-1] == "The largest error of an output, relative to the largest output: 1e-05."


def test_kernels_are_shown_next_to_the_width_64():
    """Oracle: by hand. All channels cost the same, but for the width 64, where they cost half."""
    lines = never_slower.kernels({"onnxruntime": {"spatial": PRICES}})
    shown = [float(cell) for cell in lines[-2].split("|")[2:-1]]
    assert shown == pytest.approx([2 * width / 64 for width in never_slower.SHOWN_WIDTHS], abs=0.006)


def test_a_comparison_of_a_published_network_is_shown_without_what_was_not_measurable():
    """Oracle: by hand. One thread without noise; on two threads other programs took a core."""
    latency = {"runtime": "onnxruntime", "batch": 1, "names": ["dense", "none", "fast"], "device": "cpu"}
    times = [[2.0] * 20, [2.5] * 20, [1.0] * 20]
    document = {
        "counts": [{"name": name, "macs": macs} for name, macs in (("dense", 100), ("none", 90), ("fast", 98))],
        "latencies": [
            latency | {"threads": 1, "samples_ms": times, "cpu_ms": times, "overload": 0.0},
            latency | {"threads": 2, "samples_ms": times, "cpu_ms": None, "overload": 1.0},
        ],
    }
    stored = json.dumps(never_slower.of_published(document), sort_keys=True)
    lines = never_slower.published(json.loads(stored))
    assert "| configuration | none, 10.0 % fewer MACs | fast, 2.0 % fewer MACs |" in lines
    assert "| onnxruntime, 1 thread, batch 1 | 0.80 (0.80 to 0.80) | 2.00 (2.00 to 2.00) |" in lines
    busy = "(other programs took 1.0 of the cores)"
    assert f"| onnxruntime, 2 threads, batch 1 | {busy} | {busy} |" in lines
