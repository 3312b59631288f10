"""The benchmark against hand-made samples, a clock of our own, and counts made by hand."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import onnx_file
from torch import nn

from slimnet import inspect
from slimnet.benchmark import (
    Contender,
    Interval,
    Latency,
    Settings,
    compare,
    count,
    environment,
    macs,
    measure,
    onnx_input_shape,
    onnx_macs,
    parameters,
    ratio_interval,
    usable_cores,
)
from slimnet.benchmark.turns import FEWEST_ROUNDS, MOST_ROUNDS, interleave
from slimnet.errors import InputError, UsageError
from slimnet.models import build
from slimnet.modules.example_inputs import batched

QUICK = Settings(batches=(1, 3), threads=1, seconds=0.02)


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 5))


def noisy_rounds(rng: np.random.Generator, ratio: float, rounds: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Two contenders on a machine whose speed drifts and jumps for both, with noise of their own on top."""
    weather = np.exp(0.2 * np.cumsum(rng.normal(0, 0.1, rounds)) + 0.3 * (rng.random(rounds) < 0.1))
    slow, fast = (weather * rng.lognormal(0, 0.05, rounds) for _ in range(2))
    return ratio * slow, fast


class Clock:
    """A clock that only moves when a run says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def run(self, name: str, seconds: float):
        def call() -> None:
            self.now += seconds
            self.calls.append(name)

        return call


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says(monkeypatch):
    """Oracle: samples made with a known ratio; 95 % intervals of 100 experiments hold it in 90 % or more."""
    monkeypatch.setattr("slimnet.benchmark.intervals.RESAMPLES", 300)
    rng = np.random.default_rng(1)
    intervals = [ratio_interval(*noisy_rounds(rng, 1.3)) for _ in range(100)]
    held = np.mean([interval.low <= 1.3 <= interval.high for interval in intervals])
    assert held >= 0.9
    assert np.median([interval.high - interval.low for interval in intervals]) < 0.15


def test_equal_contenders_are_called_equal(monkeypatch):
    monkeypatch.setattr("slimnet.benchmark.intervals.RESAMPLES", 300)
    rng = np.random.default_rng(2)
    verdicts = [ratio_interval(*noisy_rounds(rng, 1.0)).verdict for _ in range(100)]
    assert verdicts.count("no measurable difference") >= 90


def test_the_value_is_the_ratio_of_medians_and_lies_in_its_interval():
    first, second = [4.0, 2.0, 9.0], [1.0, 2.0, 1.0]
    interval = ratio_interval(first, second)
    assert interval.value == 4.0
    assert interval.low <= interval.value <= interval.high


def test_the_interval_is_the_same_every_time():
    samples = noisy_rounds(np.random.default_rng(3), 1.1)
    assert ratio_interval(*samples) == ratio_interval(*samples)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (Interval(0.99, 1.2, 1.4), "no measurable difference"),
        (Interval(1.0, 1.2, 1.4), "no measurable difference"),
        (Interval(1.01, 1.2, 1.4), "1.20 × faster"),
        (Interval(0.4, 0.5, 0.9), "2.00 × slower"),
    ],
)
def test_a_verdict_claims_nothing_that_the_interval_does_not_hold(interval, words):
    assert interval.verdict.replace("\u202f", " ") == words


def test_the_spread_goes_the_way_of_the_verdict():
    assert Interval(0.4, 0.5, 0.8).spread.split() == ["1.25", "to", "2.50"]
    assert Interval(1.25, 1.5, 2.5).spread.split() == ["1.25", "to", "2.50"]


def test_contenders_take_turns_and_the_order_turns_too():
    clock = Clock()
    samples = interleave([clock.run("a", 0.004), clock.run("b", 0.008)], 1.0, clock)
    timed = "".join(clock.calls)[-4 * (samples.shape[1] // 2) :]
    assert {timed[offset : offset + 4] for offset in range(0, len(timed), 4)} == {"abba", "baab"}
    assert np.allclose(samples, [[4.0], [8.0]])


def test_a_run_shorter_than_the_clock_can_tell_is_repeated_and_divided():
    clock = Clock()
    samples = interleave([clock.run("a", 1e-5), clock.run("b", 2e-5)], 0.1, clock)
    assert np.allclose(samples, [[0.01], [0.02]])
    assert clock.calls[-100:] in (["a"] * 100, ["b"] * 50 + ["a"] * 50, ["a"] * 50 + ["b"] * 50)


def test_slow_runs_still_get_enough_rounds_and_fast_ones_not_too_many():
    clock = Clock()
    assert interleave([clock.run("a", 5.0)] * 2, 1.0, clock).shape == (2, FEWEST_ROUNDS)
    assert interleave([clock.run("a", 0.001)] * 2, 1e9, clock).shape == (2, MOST_ROUNDS)


def by_hand(model: nn.Module, example: torch.Tensor) -> int:
    """MACs from the definition: for each layer, its taps times the places where they are applied."""
    total = 0

    def hook(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.ConvTranspose2d):
            total += layer.weight[0].numel() * inputs[0].numel()
        elif isinstance(layer, nn.Conv2d):
            total += layer.weight[0].numel() * output.numel()
        elif isinstance(layer, nn.Linear):
            total += layer.in_features * output.numel()

    handles = [layer.register_forward_hook(hook) for layer in model.modules()]
    with torch.no_grad():
        model(example)
    for handle in handles:
        handle.remove()
    return total


@pytest.mark.parametrize(
    "model",
    [
        nn.Conv2d(4, 6, (3, 5), stride=2, padding=1),
        nn.Conv2d(4, 8, 3, groups=2, dilation=2),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
        nn.Sequential(nn.Flatten(), nn.Linear(4 * 9 * 9, 7), nn.ReLU(), nn.Linear(7, 3, bias=False)),
        nn.Linear(9, 5),
        nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.AvgPool2d(3), nn.Softmax(1)),
    ],
    ids=["strided", "grouped", "depthwise", "transposed", "linear", "linear on maps", "others do not count"],
)
def test_macs_are_those_of_convolutions_and_linear_layers(model):
    """Oracle: taps times places, counted layer by layer; two floating-point operations are one MAC."""
    example = torch.randn(1, 4, 9, 9)
    assert macs(model.eval(), example.expand(5, -1, -1, -1)) == by_hand(model, example) > 0


@pytest.mark.parametrize(("arch", "shape"), [("resnet20", (3, 32, 32)), ("torchvision:mobilenet_v2", (3, 64, 64))])
def test_the_counter_and_the_trace_agree(arch, shape):
    """Oracle: the plan's MACs and parameters, which the trace counts in another way."""
    model, example = build(arch).eval(), torch.randn(2, *shape)
    plan = inspect(model, example).plan
    assert macs(model, example) == plan.macs_before
    assert parameters(model) == plan.params_before


def test_shared_parameters_count_once():
    layer = nn.Linear(4, 4)
    assert parameters(nn.Sequential(layer, nn.ReLU(), layer)) == 20


def test_macs_of_an_onnx_graph(tmp_path):
    """Oracle: counted by hand from the shapes; the product of two activations is no linear layer."""
    path = onnx_file(tmp_path / "net.onnx")
    convolution, transposed = 6 * 4 * 4 * 2 * 9, 6 * 4 * 4 * 2 * 4
    assert onnx_macs(path) == convolution + transposed + 7 * 50 + 3 * 7
    assert onnx_input_shape(path) == (4, 9, 9)
    counts, _ = count([Contender("a", onnx=path, files={"onnx": path})] * 2, torch.zeros(1, 4, 9, 9))
    assert counts.params == 6 * 2 * 9 + 6 * 2 * 4 + 7 * 50 + 7 * 3
    assert counts.file_bytes == {"onnx": path.stat().st_size}


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"\x08\x08", None], ids=["empty", "text", "no graph", "missing"]
)
def test_what_is_no_onnx_model_is_refused(tmp_path, content):
    path = tmp_path / "net.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"net\.onnx"):
        onnx_macs(path)


def test_batches_are_made_by_repeating_and_cutting():
    rows = torch.arange(3).float()[:, None]
    assert batched(rows, 7).tensors[0].flatten().tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert batched({"x": rows}, 2).kwargs["x"].flatten().tolist() == [0, 1]
    with pytest.raises(InputError, match="no example"):
        batched(torch.zeros(0, 3), 4)


def test_measuring_leaves_networks_and_threads_as_they_were():
    """Train mode, weights, BatchNorm statistics and torch's thread count are all unchanged."""
    model, example = small_net().train(), torch.randn(4, 3, 8, 8)
    before, threads = copy.deepcopy(model.state_dict()), torch.get_num_threads()
    settings = Settings(batches=(1,), threads=threads + 1, seconds=0.01)
    compare([Contender("a", model), Contender("b", small_net())], example, settings)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.get_num_threads() == threads


def test_one_latency_for_each_runtime_and_batch():
    pair = [Contender("dense", small_net()), Contender("slim", small_net())]
    latencies = list(measure(pair, torch.randn(2, 3, 8, 8), QUICK))
    assert [(each.runtime, each.batch, each.threads) for each in latencies] == [
        ("torch", 1, 1),
        ("torch", 3, 1),
    ]
    assert all(each.names == ("dense", "slim") and each.median_ms(0) > 0 for each in latencies)


def test_a_network_with_a_thousand_times_the_work_is_found_slower():
    """Oracle: the work. Only the order of the medians is looked at, which holds on a busy machine too."""
    wide, narrow = nn.Conv2d(64, 256, 5).eval(), nn.Conv2d(64, 256, 1, groups=64, stride=4).eval()
    pair = [Contender("wide", wide), Contender("narrow", nn.Sequential(narrow, nn.Upsample((36, 36))).eval())]
    (latency,) = measure(pair, torch.randn(1, 64, 40, 40), Settings((1,), 1, 0.3))
    assert latency.median_ms(0) > latency.median_ms(1)


def test_numbers_of_dead_filters_cost_no_time_while_it_is_measured():
    """Oracle: a denormal number, which is zero in there and itself outside."""
    tiny = torch.full((1, 3, 8, 8), 1e-39)
    seen = []

    class Probe(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(float((images * 1.0).abs().sum()))
            return images

    list(measure([Contender("a", Probe()), Contender("b", Probe())], tiny, Settings((1,), 1, 0.01)))
    assert seen
    assert not any(seen)
    assert float((tiny * 1.0).abs().sum()) > 0


def test_onnx_files_are_measured_without_a_module(tmp_path):
    path = onnx_file(tmp_path / "net.onnx")
    pair = [Contender("a", onnx=path), Contender("b", onnx=path)]
    comparison = compare(pair, torch.randn(1, 4, 9, 9), QUICK)
    assert {latency.runtime for latency in comparison.latencies} == {"onnxruntime", "openvino"}


def test_a_comparison_for_machines_holds_the_raw_samples():
    pair = [Contender("dense", small_net()), Contender("slim", small_net())]
    comparison = compare(pair, torch.randn(1, 3, 8, 8), QUICK)
    document = json.loads(comparison.to_json())
    (first, _) = document["latencies"]
    assert first["median_ms"][0] == pytest.approx(np.median(first["samples_ms"][0]))
    assert first["speedup"][0]["value"] == 1
    assert document["environment"]["torch"] == torch.__version__


def test_the_environment_names_what_matters():
    where = environment()
    assert where.cores == usable_cores() >= 1
    assert where.torch == torch.__version__
    assert all(value for _, value in where.rows())


def refusals() -> list:
    net, example = small_net(), torch.randn(1, 3, 8, 8)
    tiny = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    return [
        pytest.param([Contender("a", net)], example, "at least two", id="alone"),
        pytest.param(
            [Contender("a", net), Contender("b", onnx=Path("b.onnx"))], example, "no runtime", id="no runtime"
        ),
        pytest.param([Contender("a", net), Contender("b", tiny)], example, "one task", id="other task"),
        pytest.param([Contender("a", net)] * 2, torch.zeros(1, 3, 9, 9), "does not run on", id="other inputs"),
        pytest.param([Contender("a", onnx=Path("gone.onnx"))] * 2, example, "gone.onnx", id="missing file"),
    ]


@pytest.mark.parametrize(("contenders", "example", "message"), refusals())
def test_what_cannot_be_compared_is_refused_in_one_line(contenders, example, message):
    with pytest.raises(UsageError, match=message) as refusal:
        compare(contenders, example, QUICK)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "wrong", [{"batches": ()}, {"batches": (0,)}, {"threads": 0}, {"seconds": 0.0}, {"seconds": math.nan}]
)
def test_settings_that_measure_nothing_are_refused(wrong):
    with pytest.raises(UsageError):
        Settings(**wrong)


def test_latency_compares_any_two():
    latency = Latency("torch", 1, 1, ("a", "b", "c"), ((4.0,) * 11, (2.0,) * 11, (1.0,) * 11))
    assert latency.speedup().value == 4
    assert latency.speedup(1).value == 2
    assert latency.speedup(2, 1).value == 2
