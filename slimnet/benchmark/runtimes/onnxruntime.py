"""onnxruntime, on the CPU or with its CUDA provider."""

from collections.abc import Mapping
from pathlib import Path

import onnxruntime
import torch
from torch import nn

from slimnet.benchmark.contender import Cell, Contender
from slimnet.benchmark.runtimes.layer_timer import LayerTimer
from slimnet.benchmark.runtimes.onnxruntime_layers import OnnxLayers
from slimnet.benchmark.runtimes.onnxruntime_session import CUDA_PROVIDER, feeds_of, onnx_session
from slimnet.benchmark.runtimes.runtime import MakeTimer, Runtime
from slimnet.benchmark.turns import Run
from slimnet.errors import whole_reason
from slimnet.modules.example_inputs import Inputs


class OnnxRuntime(Runtime):
    """ONNX files, optimised by onnxruntime."""

    name = "onnxruntime"
    needs = "onnx"

    def versions(self) -> Mapping[str, str]:
        """The version of onnxruntime."""
        return {"onnxruntime": onnxruntime.__version__}

    def obstacle(self, device: str) -> str | None:
        """On a GPU: the missing CUDA provider."""
        if device == "cpu" or CUDA_PROVIDER in onnxruntime.get_available_providers():
            return None
        return f"{self.name} has no {CUDA_PROVIDER} here, which {device} needs; install onnxruntime-gpu"

    def details(self) -> str:
        """Its providers."""
        return ", ".join(onnxruntime.get_available_providers())

    def prepare(self, contender: Contender, cell: Cell, inputs: Inputs) -> Run:
        """One run of the ONNX file."""
        assert contender.onnx is not None
        return onnx_run(contender.onnx, inputs, cell.threads, cell.device)

    def classifier(self, contender: Contender, threads: int, device: str) -> nn.Module:
        """The ONNX file on the CPU."""
        assert contender.onnx is not None
        return OnnxClassifier(contender.onnx, threads)

    def layer_timers(self, device: str) -> MakeTimer | None:
        """Times from onnxruntime's profile on the CPU; None on a GPU, where the profile contains launches only."""
        return time_nodes if device == "cpu" else None

    def refusal(self, name: str, given: str, error: Exception) -> str:
        """The message with everything that onnxruntime says, which is several lines."""
        return f"{name} does not run on inputs of {given}: {whole_reason(error)}"

    def shapes(self, output: object) -> list[tuple[int, ...]]:
        """The shapes of arrays, or of values on a GPU."""
        if isinstance(output, list) and output and isinstance(output[0], onnxruntime.OrtValue):
            return [tuple(value.shape()) for value in output]
        return super().shapes(output)


def time_nodes(contender: Contender, cell: Cell, inputs: Inputs, prefix: Path) -> LayerTimer:
    """The timer of the nodes of a contender's ONNX file."""
    assert contender.onnx is not None
    return OnnxLayers(contender.onnx, inputs, cell.threads, prefix)


class OnnxClassifier(nn.Module):
    """An ONNX file under onnxruntime, as a module that scores images, which are on the CPU."""

    def __init__(self, path: Path, threads: int, device: str = "cpu", provider: str = CUDA_PROVIDER):
        super().__init__()
        self.path = path
        self.session = onnx_session(path, threads, device, provider=provider)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `(N, classes)` of images `(N, C, H, W)`.

        Raises:
            ValueError: onnxruntime rejects them.
        """
        feeds = feeds_of(self.session, self.path, Inputs.of(images))
        try:
            return torch.from_numpy(self.session.run(None, feeds)[0])
        except Exception as error:  # onnxruntime's errors have no common base
            raise ValueError(whole_reason(error)) from error


def onnx_run(path: Path, inputs: Inputs, threads: int, device: str, provider: str = CUDA_PROVIDER) -> Run:
    """One run of an ONNX file; on a GPU its inputs and outputs stay there, and `provider` computes."""
    session = onnx_session(path, threads, device, provider=provider)
    feeds = feeds_of(session, path, inputs)
    if device == "cpu":
        return lambda: session.run(None, feeds)
    index = torch.device(device).index or 0
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", index))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda", index)

    def run() -> object:
        session.run_with_iobinding(binding)
        return binding.get_outputs()

    return run
