"""TensorRT on a GPU, as a provider of onnxruntime."""

import onnxruntime
from torch import nn

from slimnet.benchmark.contender import Cell, Contender
from slimnet.benchmark.runtimes.onnxruntime import OnnxClassifier, OnnxRuntime, onnx_run
from slimnet.benchmark.runtimes.onnxruntime_session import TENSORRT_PROVIDER
from slimnet.benchmark.runtimes.runtime import MakeTimer
from slimnet.benchmark.turns import Run
from slimnet.modules.example_inputs import Inputs


class TensorRt(OnnxRuntime):
    """ONNX files, of which onnxruntime gives TensorRT what it can run, and CUDA the rest."""

    name = "tensorrt"
    on_request = True

    def obstacle(self, device: str) -> str | None:
        """The CPU, or a build of onnxruntime without the provider."""
        if device == "cpu":
            return f"{self.name} runs on an NVIDIA GPU, not on {device}; measure on cuda, or leave {self.name} out"
        if TENSORRT_PROVIDER in onnxruntime.get_available_providers():
            return None
        return f"onnxruntime has no {TENSORRT_PROVIDER} here; install onnxruntime-gpu and TensorRT's libraries"

    def prepare(self, contender: Contender, cell: Cell, inputs: Inputs) -> Run:
        """One run of the ONNX file on the GPU; TensorRT builds its engine in the first one, which is not timed."""
        assert contender.onnx is not None
        return onnx_run(contender.onnx, inputs, cell.threads, cell.device, TENSORRT_PROVIDER)

    def classifier(self, contender: Contender, threads: int, device: str) -> nn.Module:
        """The ONNX file on the GPU, for images on the CPU."""
        assert contender.onnx is not None
        return OnnxClassifier(contender.onnx, threads, device, TENSORRT_PROVIDER)

    def layer_timers(self, device: str) -> MakeTimer | None:
        """None: what TensorRT fused has no names of layers."""
        return None
