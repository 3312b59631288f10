"""benchmarks/latency.py: which channels it kills, and what its tables say of made-up measurements."""

import latency
import numpy as np
import pytest

WORK = {"dense": 100, "none": 25, "multiples of 4": 50}


def measured(dense: float, none: float, rounded: float) -> dict:
    """Three contenders without noise, of which auto took the last."""
    times = {"dense": dense, "none": none, "multiples of 4": rounded}
    return {"auto": "multiples of 4", "samples_ms": {name: [each] * 5 for name, each in times.items()}}


def results(places: dict, profile: dict | None = None) -> dict:
    row = {"macs": WORK, "error": dict.fromkeys(WORK, 1e-6), "torch_pruning_failed": "it fell over", "places": places}
    return {"cells": {"net 50": row if profile is None else row | {"profile": profile}}}


@pytest.mark.parametrize("target", [0.3, 0.5, 0.7])
def test_the_shares_meet_the_target_and_keep_the_shape_of_the_profile(target):
    """Oracle: the weighted mean, and the differences of log-odds, which a shift leaves alone."""
    sizes = [16, 32, 64, 64, 128, 256, 512]
    found = latency.shares(sizes, target)
    assert np.average(found, weights=sizes) == pytest.approx(target, abs=1e-6)
    odds = np.log(found / (1 - found))
    profile = np.array(latency.PROFILE)
    assert np.allclose(np.diff(odds), np.diff(np.log(profile / (1 - profile))))


def test_one_thread_at_batch_one_and_everything_else_have_a_table_each():
    """Oracle: by hand. Half of the MACs in a third of the time is an efficiency of 1.5."""
    places = {
        "onnxruntime, 1 thread, batch 1": measured(9, 6, 3),
        "onnxruntime, 2 threads, batch 32": measured(8, 8, 4),
        "onnxruntime, 2 threads, batch 8": measured(6, 3, 6),
    }
    lines = [line for line in latency.table(results(places)).splitlines() if line.startswith("| net 50")]
    assert lines == [
        "| net 50 | 9.0 | 4.00 | 1.50 (1.50 to 1.50) | 3.00 (4) | 3.00 (3.00 to 3.00), 4 | 2.00 | 1.50 | it crashes |",
        "| net 50 | 2 | 8 | 6.0 | 2.00 (2.00 to 2.00) | 1.00 (1.00 to 1.00), 4 | 0.50 | it crashes |",
        "| net 50 | 2 | 32 | 8.0 | 1.00 (1.00 to 1.00) | 2.00 (2.00 to 2.00), 4 | 1.00 | it crashes |",
        "| net 50 | 1e-06 | it fell over |",
    ]


def test_the_profile_is_shown_of_what_was_timed_as_well():
    """Oracle: by hand. A quarter of the MACs in half of the time, and half of them in a quarter of it."""
    profile = {
        "names": ["dense", "multiples of 4", "none"],
        "layers": [8.0, 2.0, 4.0],
        "others": {"ReorderInput": [0.0, 0.0, 1.0], "ReorderOutput": [1.0, 0.5, 1.0], "Concat": [3.0, 2.0, 2.5]},
        "mixed_at_most": 1.0123,
    }
    timed = latency.table(results({"onnxruntime, 1 thread, batch 1": measured(9, 6, 3)}, profile))
    assert "| net 50 | 8.0 → 4.0 → 2.0 | 0.50, 2.00 | 1.0 → 2.0 → 0.5 | 3.0 → 2.5 → 2.0 | 1.012 |" in timed
    assert "→" not in latency.table(results({}, profile)).partition("|---|")[2]
