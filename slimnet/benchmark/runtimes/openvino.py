"""OpenVINO on the CPU, an optional extra."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from slimnet.benchmark.contender import Cell, Contender
from slimnet.benchmark.runtimes.layer_timer import LayerTimer
from slimnet.benchmark.runtimes.openvino_layers import OpenVinoLayers
from slimnet.benchmark.runtimes.openvino_session import read_network, refusal_of, request_for
from slimnet.benchmark.runtimes.runtime import MakeTimer, Runtime, file_of, obstacle_on_cpu, shapes_of
from slimnet.benchmark.turns import Run
from slimnet.errors import UsageError
from slimnet.export.openvino_model import compiled, infer, load_openvino, said
from slimnet.modules.example_inputs import Inputs
from slimnet.version import NOT_INSTALLED, installed_version


class OpenVino(Runtime):
    """ONNX files and those in OpenVINO's own format, compiled by OpenVINO in float32, for the shapes of the inputs."""

    name = "openvino"
    needs = "onnx"
    takes_also = ("openvino",)

    def versions(self) -> Mapping[str, str]:
        """The version of OpenVINO, which is not imported for it."""
        version = installed_version(self.name)
        return {} if version == NOT_INSTALLED else {self.name: version}

    def obstacle(self, device: str) -> str | None:
        """A GPU, or a package that is missing or does not load."""
        return obstacle_on_cpu(self.name, device, load_openvino)

    def objection(self, contender: Contender) -> str | None:
        """The operators that OpenVINO does not have."""
        refusal = refusal_of(graph_of(contender))
        return None if refusal is None else f"{self.name} does not read {contender.name}: {refusal}"

    def prepare(self, contender: Contender, cell: Cell, inputs: Inputs) -> Run:
        """One run of the file."""
        try:
            request = request_for(graph_of(contender), inputs, cell.threads)
        except (RuntimeError, ValueError) as error:
            raise UsageError(self.refusal(contender.name, shapes_of(inputs), error)) from error
        return lambda: list(request.infer().values())

    def classifier(self, contender: Contender, threads: int, device: str) -> nn.Module:
        """The file on the CPU."""
        return OpenVinoClassifier(graph_of(contender), threads)

    def layer_timers(self, device: str) -> MakeTimer | None:
        """Times from OpenVINO's profile."""
        return self.time_nodes

    def time_nodes(self, contender: Contender, cell: Cell, inputs: Inputs, prefix: Path) -> LayerTimer:
        """The timer of the nodes of a contender's file."""
        return OpenVinoLayers(graph_of(contender), inputs, cell.threads)

    def refusal(self, name: str, given: str, error: Exception) -> str:
        """The message with what OpenVINO says, which is several lines."""
        return f"{name} does not run under {self.name} on inputs of {given}: {said(error)}"


def graph_of(contender: Contender) -> Path:
    """The file of a contender that OpenVINO runs."""
    path = file_of(contender)
    assert path is not None, "the runtime takes the contender"
    return path


class OpenVinoClassifier(nn.Module):
    """A file under OpenVINO, as a module that scores images."""

    def __init__(self, path: Path, threads: int):
        super().__init__()
        self.network = compiled(read_network(path), threads)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `(N, classes)` of images `(N, C, H, W)`.

        Raises:
            ValueError: OpenVINO rejects them.
        """
        try:
            return infer(self.network, Inputs.of(images))[0]
        except RuntimeError as error:
            raise ValueError(said(error)) from error
