"""Where contenders are measured: devices, runtimes and threads; accuracy; and every refusal in one line."""

import dataclasses
import gc
import warnings
import weakref
from unittest import mock

import onnxruntime
import pytest
import torch
from bundles import onnx_file
from test_benchmark import QUICK, small_net
from torch import nn

from slimnet.benchmark import Contender, Settings, cells, compare, environment, steps
from slimnet.benchmark.contender import contenders_of
from slimnet.benchmark.environment import _described_driver
from slimnet.benchmark.runtimes.torch_graph import graph_run
from slimnet.data import ImageData
from slimnet.errors import DataError, UsageError
from slimnet.modules.example_inputs import Inputs
from slimnet.training import evaluate

pytestmark = pytest.mark.usefixtures("operators_read_once")

EXAMPLE = torch.randn(2, 3, 8, 8)


def pair() -> list[Contender]:
    return [Contender("dense", small_net()), Contender("slim", small_net())]


def images(classes: int = 5, channels: int = 3) -> ImageData:
    torch.manual_seed(0)
    pixels = torch.randint(256, (20, 8, 8, channels), dtype=torch.uint8)
    labels = torch.arange(20) % classes
    return ImageData.of("toy", (pixels, labels), (pixels, labels), [str(each) for each in range(classes)])


@pytest.fixture
def gpu(monkeypatch):
    """A machine that says it has two GPUs; nothing can run on them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def places(settings: Settings, contenders: list[Contender]) -> list[tuple[str, str, int]]:
    return [(cell.device, cell.runtime, cell.threads) for cell in cells(contenders, settings)]


def test_a_cell_for_each_device_runtime_and_number_of_threads(gpu):
    """A GPU is measured once, and has CUDA graphs; torch.compile is slow and must be asked for."""
    settings = Settings((1,), (1, 2), 0.1, ("cpu", "cuda:1"))
    assert places(settings, pair()) == [
        ("cpu", "torch", 1),
        ("cpu", "torch", 2),
        ("cuda:1", "torch", 2),
        ("cuda:1", "torch.graph", 2),
    ]
    everything = dataclasses.replace(settings, devices=("cuda",), runtimes=("all",))
    assert [runtime for _, runtime, _ in places(everything, pair())] == ["torch", "torch.compile", "torch.graph"]


def test_onnxruntime_is_measured_on_a_gpu_where_it_has_the_provider(gpu, monkeypatch, tmp_path):
    path = onnx_file(tmp_path / "net.onnx")
    contenders = [Contender("a", onnx=path), Contender("b", onnx=path)]
    settings = Settings((1,), 1, 0.1, ("cuda",), ("onnxruntime",))
    with pytest.raises(UsageError, match="CUDAExecutionProvider"):
        cells(contenders, settings)
    with pytest.raises(UsageError, match="no requested runtime runs on cuda"):
        cells(contenders, dataclasses.replace(settings, runtimes=()))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert places(settings, contenders) == [("cuda", "onnxruntime", 1)]


def test_steps_count_what_progress_reports(tmp_path):
    reported = []
    settings = dataclasses.replace(QUICK, batches=(1,), layers=True)
    comparison = compare(pair(), EXAMPLE, settings, data=images(), progress=lambda *row: reported.append(row))
    assert [done for done, _, _ in reported] == [1, 2, 3]
    assert {of for _, of, _ in reported} == {steps(pair(), settings, images())} == {3}
    assert [label for _, _, label in reported] == ["accuracy, torch", "torch, batch 1", "torch, batch 1"]
    assert [memory.batch for memory in comparison.memories] == [1]


def test_accuracy_is_the_same_through_all_runtimes():
    """Oracle: `evaluate`, which is tested on its own, of the module."""
    first, second = small_net(), small_net()
    nn.init.normal_(second[4].weight)
    settings = Settings((1,), 1, 0.01, runtimes=("torch", "onnxruntime"))
    comparison = compare({"a": first, "b": second}, EXAMPLE, settings, data=images())
    expected = tuple(evaluate(net, images()) for net in (first, second))
    assert expected[0] != expected[1]
    assert [each.runtime for each in comparison.accuracies] == ["torch", "onnxruntime", "openvino"]
    assert all(each.values == expected for each in comparison.accuracies)
    assert first.training, "modules stay in the mode they were in"


def test_torch_compile_is_measured():
    settings = Settings((1,), 1, 0.01, runtimes=("torch.compile",))
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        (latency,) = compare({"a": net, "b": nn.Linear(4, 3)}, torch.randn(2, 4), settings).latencies
    assert latency.runtime == "torch.compile"
    assert net._compiled_call_impl is None, "the one that was given is not compiled"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"devices": ("cuda",)}, "no cuda here"),
        ({"devices": ("tpu",)}, "cpu, cuda and cuda:N"),
        ({"devices": ("cuda:x",)}, "cpu, cuda and cuda:N"),
        ({"devices": ()}, "no device"),
        ({"runtimes": ("onxruntime",)}, "did you mean onnxruntime"),
        ({"runtimes": ("coreml",)}, r"choose one \(torch,"),
        ({"batches": ()}, "not all positive"),
        ({"threads": ()}, "threads is"),
        ({"threads": (1, 0)}, "threads is"),
        ({"seconds": 0.0}, "must be positive"),
    ],
)
def test_settings_that_measure_nothing_are_refused_in_one_line(wrong, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=message) as refusal:
        Settings(**wrong)
    assert "\n" not in str(refusal.value)


def test_a_gpu_too_many_is_refused(gpu):
    assert Settings(devices=("cuda:1",)).devices == ("cuda:1",)
    with pytest.raises(UsageError, match="only 2 GPUs"):
        Settings(devices=("cuda:2",))


@pytest.mark.parametrize(
    ("runtimes", "message"),
    [
        (("torch.graph",), "CUDA graphs, which cpu has not"),
        (("torch", "onnxruntime"), "dense has no ONNX file"),
    ],
)
def test_a_runtime_that_was_asked_for_and_is_not_there_is_refused(runtimes, message):
    with pytest.raises(UsageError, match=message):
        cells(pair(), Settings(runtimes=runtimes))


def test_files_alone_do_not_run_in_torch(tmp_path):
    path = onnx_file(tmp_path / "net.onnx")
    with pytest.raises(UsageError, match="a is an ONNX file alone"):
        compare({"a": path, "b": str(path)}, torch.randn(1, 4, 9, 9), Settings(runtimes=("torch",)))


def test_what_is_no_network_is_refused():
    with pytest.raises(UsageError, match="b is a int"):
        contenders_of({"a": small_net(), "b": 3})
    with pytest.raises(UsageError, match="at least two"):
        contenders_of({"a": small_net()})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (images(classes=4), "the data has 4 classes"),
        (images(classes=6), "the data has 6 classes"),
        (images(channels=1), "does not take the images"),
    ],
)
def test_data_of_another_task_is_refused_before_anything_is_timed(data, message):
    reported = []
    with pytest.raises(DataError, match=message) as refusal:
        compare(pair(), EXAMPLE, QUICK, data=data, progress=lambda *row: reported.append(row))
    assert "\n" not in str(refusal.value)
    assert not reported


def test_a_second_contender_with_other_scores_is_named():
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 7))
    with pytest.raises(DataError, match="slim answers"):
        compare([pair()[0], Contender("slim", other)], EXAMPLE, QUICK, data=images())


def test_the_driver_is_named():
    assert _described_driver("570.1, 1980 MHz, 1980 MHz, 2619 MHz\n") == (
        "driver 570.1, 1980 MHz of at most 1980 MHz, memory 2619 MHz"
    )
    assert _described_driver("") == _described_driver("No devices were found") == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_everything_is_measured_on_a_gpu():
    """Where there is one: eager torch, CUDA graphs, layers by events, memory by the allocator, and what it is."""
    wide = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 36, 5))
    settings = Settings((1, 3), 1, 0.2, ("cpu", "cuda"), ("torch", "torch.graph"), layers=True)
    comparison = compare([Contender("a", wide), pair()[1]], EXAMPLE, settings, data=images())
    assert [(each.device, each.runtime) for each in comparison.latencies[::2]] == [
        ("cpu", "torch"),
        ("cuda", "torch"),
        ("cuda", "torch.graph"),
    ]
    assert all(each.median_ms(0) > 0 for each in comparison.latencies)
    gpu = [each for each in comparison.memories if each.device == "cuda"]
    assert all(each.peak_bytes[0] > each.peak_bytes[1] > 0 for each in gpu)
    (profile,) = [each for each in comparison.profiles if (each.device, each.batch) == ("cuda", 3)]
    assert [row.name for row in profile.layers] == ["0", "4"]
    assert comparison.environment.gpu == environment(("cuda",)).gpu != ""
    assert next(wide.parameters()).device.type == "cpu"


def test_a_cuda_graph_keeps_the_weights_and_inputs_that_it_reads(monkeypatch):
    """They would be freed with the last reference, and the next capture gives free memory back to the GPU."""
    for name in ("Stream", "current_stream", "stream", "CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, mock.MagicMock())
    model, images = nn.Linear(2, 2), torch.ones(1, 2)
    kept = weakref.ref(model), weakref.ref(images)
    replay = graph_run(model, Inputs.of(images))
    del model, images
    gc.collect()
    assert all(each() is not None for each in kept)
    assert replay().shape == (1, 2)
