"""The stacks whose times are the prices of widths, and what is measured with them."""

import time
from collections.abc import Sequence

import numpy as np
import onnxruntime
import pytest
import torch

from slimnet.benchmark import macs, onnx_macs
from slimnet.benchmark.runtimes.table import find_runtime
from slimnet.errors import UsageError
from slimnet.kernel_widths import measuring
from slimnet.kernel_widths.measuring import (
    AROUND,
    AROUND_IF_SLOW,
    FEWEST_ROUNDS,
    measure_prices,
    take_turns,
    typical_times,
)
from slimnet.kernel_widths.stacks import KERNELS, Stack
from slimnet.torch_state.process import torch_threads


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("width", [1, 13, 16])
def test_a_stack_is_the_same_network_as_a_module_and_as_a_file(kernel, width, tmp_path):
    """Oracle: onnxruntime's outputs against torch's, and multiply-accumulates counted by the benchmark."""
    stack = Stack(kernel, width, 16)
    images = torch.rand(stack.shape)
    module, path = stack.module(), stack.write_onnx(tmp_path / "stack.onnx")
    session = onnxruntime.InferenceSession(path)
    with torch.inference_mode():
        expected = module(images)
    (found,) = session.run(None, {"input": images.numpy()})
    assert found.shape == stack.shape
    assert np.allclose(found, expected.numpy(), rtol=1e-5)
    assert 0.01 < expected.min() < expected.max() < 10
    assert stack.macs == macs(module, images) == onnx_macs(path)
    written = {layer.writes for layer in stack.layers}
    assert width in written


def test_stacks_leave_random_numbers_alone():
    before = torch.get_rng_state()
    Stack("spatial", 5, 16).module()
    assert torch.equal(torch.get_rng_state(), before)


def in_turn(runs: Sequence, threads: int) -> np.ndarray:
    """Run each once, and claim a second for the first, two for the second and so on, eight times."""
    for run in runs:
        run()
    return np.tile(np.arange(1.0, len(runs) + 1), (8, 1))


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_prices_are_times_over_multiply_accumulates_at_every_remainder(name, monkeypatch):
    """Oracle: by hand from the claimed seconds. Every group of sixteen widths is measured on its own."""
    monkeypatch.setattr(measuring, "AROUND", around := (16, 64))
    reported: list[tuple[int, int, str]] = []
    with torch_threads(1):
        prices = measure_prices(find_runtime(name), 1, lambda *each: reported.append(each), in_turn)
    assert prices.runtime == name
    assert [done for done, *_ in reported] == list(range(6))
    assert {total for _, total, _ in reported} == {6}
    for kernel in KERNELS:
        curve = getattr(prices, kernel)
        assert curve.widths == tuple(width for most in around for width in range(most - 15, most + 1))
        for width, price in zip(curve.widths, curve.prices, strict=True):
            most = next(each for each in around if width <= each)
            assert curve.error == 0
            seconds = width - (most - 16)
            assert price == pytest.approx(1e12 * seconds / Stack(kernel, width, most).macs, abs=1e-4)


def test_the_typical_time_is_hardly_changed_by_disturbances_and_fast_spells():
    """Oracle: the times without either. Two thirds of all samples are far too long, and a tenth of the rounds fast."""
    dice, true = np.random.default_rng(0), np.linspace(1.0, 2.0, 16)
    samples = np.tile(true, (96, 1)) * (1 + 0.01 * dice.standard_normal((96, 16)))
    samples[np.arange(96) % 3 > 0] *= dice.uniform(1.5, 4.0, (64, 16))
    samples[40:50] *= 0.6
    typical, error = typical_times(samples)
    assert np.allclose(typical / typical[0], true / true[0], rtol=0.03)
    assert 0.001 < error < 0.03
    steady, none = typical_times(np.tile(true, (96, 1)))
    assert np.allclose(steady, true)
    assert none < 1e-12
    assert typical_times(samples[:24])[1] > error


def test_all_runs_take_turns_and_each_is_timed():
    """On two threads by the clock, which counts sleep as well; on one by the time of the CPU, which does not."""
    runs = [lambda: time.sleep(0.002), lambda: time.sleep(0.004)]
    by_clock = take_turns(runs, 2, 0.0)
    assert by_clock.shape == (FEWEST_ROUNDS, 2)
    assert by_clock[:, 0].min() >= 0.002
    assert by_clock[:, 1].min() >= 0.004
    assert np.median(take_turns(runs, 1, 0.0)) < 0.001


def test_a_runtime_that_does_not_run_here_is_refused(monkeypatch):
    runtime = find_runtime("onnxruntime")
    monkeypatch.setattr(type(runtime), "obstacle", lambda self, device: "it is not installed; install it")
    with pytest.raises(UsageError, match="not installed; install it"):
        measure_prices(runtime, 1)


def test_what_takes_long_to_prepare_is_measured_at_fewer_widths():
    assert set(AROUND_IF_SLOW) < set(AROUND)
    assert find_runtime("ncnn").on_request
