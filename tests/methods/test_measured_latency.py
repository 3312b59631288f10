"""The latency of a network that was made to a budget of latency: arithmetic of known times, and a real measurement."""

import random

import pytest
import torch
from networks import lively

from slimnet.benchmark import Latency
from slimnet.methods import latency_budget
from slimnet.methods.latency_budget import measure_latency
from slimnet.models import build

ARGS = {"widths": [8, 12], "pool_after": [1], "hidden": 16, "in_channels": 1}
IMAGES = torch.zeros(2, 1, 16, 16)


@pytest.mark.parametrize(
    ("asked", "missed", "verdict"),
    [
        (0.5, True, "the budget is missed"),
        (0.75, False, "whether that is met is within the noise"),
        (0.9, False, "the budget is met"),
    ],
)
def test_a_budget_is_judged_by_the_interval(asked, missed, verdict, monkeypatch):
    """Times of 4 ms against 2.8 or 3.2."""
    times = ((4.0,) * 40, tuple(random.Random(0).sample((2.8, 3.2) * 20, 40)))
    monkeypatch.setattr(latency_budget, "measure", lambda *_: [Latency("torch", 1, 2, ("dense", "slim"), times)])
    found = measure_latency(build("basicnet", ARGS), build("basicnet", ARGS), IMAGES, asked, "torch")
    assert found.left == pytest.approx(0.75)
    assert 0.65 <= found.low <= 0.75 <= found.high <= 0.85
    assert (found.dense_ms, found.slim_ms, found.threads, found.batch) == (4.0, pytest.approx(3.0), 2, 1)
    assert found.missed == missed
    assert found.verdict == verdict
    assert str(found).endswith(f"{asked:g} was asked: {verdict}")


@pytest.mark.parametrize(("threads", "by_cpu"), [(1, "; by CPU time it is 0.75"), (2, "")])
def test_a_budget_is_not_judged_where_other_programs_decide(threads, by_cpu, monkeypatch):
    """Oracle: by hand. 4 ms against 3, of which the one thread worked half; two threads lacked one core."""
    times = ((4.0,) * 40, (3.0,) * 40)
    cpu = tuple(tuple(each / 2 for each in row) for row in times) if threads == 1 else None
    latency = Latency("torch", 1, threads, ("dense", "slim"), times, cpu_ms=cpu, overload=1.0)
    monkeypatch.setattr(latency_budget, "measure", lambda *_: [latency])
    found = measure_latency(build("basicnet", ARGS), build("basicnet", ARGS), IMAGES, 0.5, "torch")
    assert not found.missed
    assert "whether that is met is not measurable on this busy machine (other programs took" in str(found)
    assert str(found).endswith(f"){by_cpu}")


def test_a_network_is_timed_beside_the_dense_one():
    """A network of an eighth of the widths, on onnxruntime; the dense one is not changed."""
    dense = lively(build("basicnet", ARGS | {"widths": [64, 96]}))
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    found = measure_latency(dense, lively(build("basicnet", ARGS)), IMAGES, 0.5, seconds=0.2)
    assert found.runtime == "onnxruntime"
    assert 0 < found.low <= found.left <= found.high
    assert found.left == pytest.approx(found.slim_ms / found.dense_ms)
    assert found.processor
    assert all(map(torch.equal, before.values(), dense.state_dict().values()))
