"""TensorRT as a provider of onnxruntime: which providers are asked for, and the refusals. No GPU is needed."""

import onnxruntime
import pytest
import slimnet_cli
from bundles import onnx_file

from slimnet.benchmark.contender import Cell, Contender
from slimnet.benchmark.layers import without_layers
from slimnet.benchmark.runtimes import onnxruntime_session
from slimnet.benchmark.runtimes.onnxruntime_session import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    TENSORRT_PROVIDER,
    onnx_session,
    providers_for,
)
from slimnet.benchmark.runtimes.table import find_runtime
from slimnet.benchmark.settings import Settings, cells, requested
from slimnet.errors import UsageError

ALL = (TENSORRT_PROVIDER, CUDA_PROVIDER, CPU_PROVIDER)


@pytest.mark.parametrize(
    ("device", "provider", "available", "expected"),
    [
        ("cpu", TENSORRT_PROVIDER, ALL, [CPU_PROVIDER]),
        ("cuda", CUDA_PROVIDER, ALL, [(CUDA_PROVIDER, "0"), CPU_PROVIDER]),
        ("cuda:1", TENSORRT_PROVIDER, ALL, [(TENSORRT_PROVIDER, "1"), (CUDA_PROVIDER, "1"), CPU_PROVIDER]),
        ("cuda", TENSORRT_PROVIDER, (TENSORRT_PROVIDER, CPU_PROVIDER), [(TENSORRT_PROVIDER, "0"), CPU_PROVIDER]),
        ("cuda", CUDA_PROVIDER, (CPU_PROVIDER,), [(CUDA_PROVIDER, "0"), CPU_PROVIDER]),
    ],
)
def test_the_providers_are_tensorrt_then_cuda_then_the_cpu(device, provider, available, expected):
    found = [
        each if isinstance(each, str) else (each[0], each[1]["device_id"])
        for each in providers_for(device, provider, available)
    ]
    assert found == expected


def test_it_runs_on_a_gpu_if_onnxruntime_has_the_provider(monkeypatch):
    runtime = find_runtime("tensorrt")
    assert "runs on an NVIDIA GPU, not on cpu" in runtime.obstacle("cpu")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER, CPU_PROVIDER])
    assert runtime.obstacle("cuda") == (
        "onnxruntime has no TensorrtExecutionProvider here; install onnxruntime-gpu and TensorRT's libraries"
    )
    assert find_runtime("onnxruntime").obstacle("cuda") is None
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(ALL))
    assert runtime.obstacle("cuda:0") is None


def test_it_is_measured_on_request_alone(tmp_path):
    path = onnx_file(tmp_path / "net.onnx")
    pair = [Contender("a", onnx=path), Contender("b", onnx=path)]
    assert "tensorrt" not in [each.name for each in requested(Settings())]
    assert "tensorrt" in [each.name for each in requested(Settings(runtimes=("all",)))]
    assert "tensorrt" not in [cell.runtime for cell in cells(pair, Settings((1,), 1, runtimes=("all",)))]
    with pytest.raises(UsageError, match=r"^tensorrt runs on an NVIDIA GPU, not on cpu; measure on cuda"):
        cells(pair, Settings((1,), 1, runtimes=("tensorrt",)))


def test_a_session_for_which_it_does_not_start_is_refused(tmp_path, monkeypatch):
    """onnxruntime itself goes on with the next provider, whose times would be taken for TensorRT's."""

    class OnTheCpu:
        def __init__(self, *_: object, providers: list, **__: object) -> None:
            assert providers[0][0] == TENSORRT_PROVIDER

        def get_providers(self) -> list[str]:
            return [CPU_PROVIDER]

    monkeypatch.setattr(onnxruntime_session.onnxruntime, "InferenceSession", OnTheCpu)
    with pytest.raises(UsageError, match=f"^onnxruntime's {TENSORRT_PROVIDER} does not start here; leave tensorrt out"):
        onnx_session(onnx_file(tmp_path / "net.onnx"), 1, "cuda", provider=TENSORRT_PROVIDER)


def test_the_command_refuses_it_in_one_line(tmp_path, capsys):
    path = str(onnx_file(tmp_path / "net.onnx"))
    assert slimnet_cli.run(["benchmark", path, path, "--runtime", "tensorrt"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "tensorrt runs on an NVIDIA GPU" in said


def test_runtimes_without_times_of_layers_are_named():
    """Once each, and no runtime that has them."""
    asked = [Cell("cpu", name, 1, batch) for name in ("ncnn", "onnxruntime", "torch.compile") for batch in (1, 2)]
    assert without_layers(asked) == (
        "ncnn has no times of layers: its package is built without them (NCNN_BENCHMARK)",
        "torch.compile does not tell layers apart on cpu",
    )
