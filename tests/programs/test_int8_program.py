"""benchmarks/int8.py: what its tables and its claim say of made-up measurements."""

import claims
import int8

SAMPLES = {name: [ms] * 5 for name, ms in {"dense": 12.0, "slim": 6.0, "dense int8": 8.0, "slim int8": 3.0}.items()}
ENVIRONMENT = {"Processor": "a CPU", "Measured": "2026-11-30 05:00"}


def cell(*, certified: bool) -> dict:
    """A network with half of its MACs, and one image in a hundred lost by int8."""
    top1 = {"dense": 0.9, "slim": 0.9, "dense int8": 0.89, "slim int8": 0.88}
    networks = [{"name": name, "accuracy": {"top1": share, "top5": 1.0, "n": 100}} for name, share in top1.items()]
    apart = [{"name": name, "other": "dense", "top1": 0.5, "mean": 0.25, "largest": 2} for name in list(top1)[1:]]
    found = {
        "macs": {"dense": 100, "slim": 50},
        "bytes": dict.fromkeys(int8.FOUR, 2_500_000),
        "samples_ms": {"onnxruntime": SAMPLES},
    }
    return found | ({"certificate": {"n": 100, "networks": networks, "agreements": apart}} if certified else {})


RESULTS = {
    "cells": {key: cell(certified=key in int8.PUBLISHED) for key in (*int8.PUBLISHED, *int8.DEAD)},
    "environment": ENVIRONMENT,
}


def test_the_tables_hold_what_was_measured():
    """Oracle: by hand."""
    lines = int8.table(RESULTS).splitlines()
    assert "| resnet56, dead channels | dense | 90.00 | 100.00 | – | – | – |" in lines
    assert "| resnet56, dead channels | slim int8 | 88.00 | 100.00 | 50.00 | 0.25 | 2 |" in lines
    times = "| 2.00 | 12.0 | 2.00 (2.00 to 2.00) | 1.50 (1.50 to 1.50) | 4.00 (4.00 to 4.00) |"
    assert f"| vgg16_bn, half dead {times}" in lines
    assert "| resnet50, half dead | 2.50 | 2.50 | 2.50 | 2.50 |" in lines
    assert not any("vgg16_bn, half dead | dense |" in line for line in lines)


def test_what_nncf_quantised_has_a_table_and_columns_of_its_own():
    """Oracle: by hand; where it was not timed there is a dash."""
    nncf = cell(certified=True)
    timed = {"onnxruntime": SAMPLES, "openvino": SAMPLES | {"slim int8, NNCF": [2.0] * 5}}
    row = nncf | {"certificate by NNCF": nncf["certificate"], "samples_ms": timed}
    results = RESULTS | {"cells": RESULTS["cells"] | {int8.EXACT: row}}
    text = int8.table(results)
    assert "run by OpenVINO" not in int8.table(RESULTS)
    assert text.count("| resnet56, dead channels | slim int8 | 88.00 |") == 2
    assert "| slim | dense int8 | slim int8 | slim int8, NNCF |" in text
    assert "| 4.00 (4.00 to 4.00) | 6.00 (6.00 to 6.00) |" in text


def test_the_claim_is_of_the_slim_networks_in_int8(monkeypatch):
    monkeypatch.setattr(claims, "read", {"int8": RESULTS}.__getitem__)
    claim = claims.slim_and_int8()
    assert "4.00 times faster (vgg16_bn, half dead) and 4.00 times faster (resnet50, half dead)" in claim.ours
    assert "-2.00 (dead channels), -2.00 (half of the MACs)" in claim.ours
    assert claim.page == "int8"
