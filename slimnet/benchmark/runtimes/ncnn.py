"""ncnn on the CPU, an optional extra."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from slimnet.benchmark.contender import Cell, Contender
from slimnet.benchmark.counts import onnx_input_shape
from slimnet.benchmark.runtimes.runtime import Runtime, obstacle_on_cpu, shapes_of
from slimnet.benchmark.turns import Run
from slimnet.errors import UsageError
from slimnet.export.ncnn_model import arrays_of, convert, load_ncnn, network_for
from slimnet.modules.example_inputs import Inputs
from slimnet.version import NOT_INSTALLED, installed_version

PACKAGES = ("ncnn", "pnnx")


class Ncnn(Runtime):
    """ONNX files converted by pnnx and run by ncnn in float32; a batch is computed image by image."""

    name = "ncnn"
    needs = "onnx"
    on_request = True

    def versions(self) -> Mapping[str, str]:
        """The versions of ncnn and of its converter, which are not imported for it."""
        found = {package: installed_version(package) for package in PACKAGES}
        return {package: version for package, version in found.items() if version != NOT_INSTALLED}

    def obstacle(self, device: str) -> str | None:
        """A GPU, or a package that is missing or does not load."""
        return obstacle_on_cpu(self.name, device, load_ncnn)

    def objection(self, contender: Contender) -> str | None:
        """What ncnn does not have, where the file says the shape of its input."""
        assert contender.onnx is not None
        shape = onnx_input_shape(contender.onnx)
        if shape is None:
            return None
        try:
            convert(contender.onnx, [shape])
        except UsageError as error:
            return str(error)
        return None

    def why_no_layers(self, device: str) -> str:
        """What its package lacks."""
        return f"{self.name} has no times of layers: its package is built without them (NCNN_BENCHMARK)"

    def prepare(self, contender: Contender, cell: Cell, inputs: Inputs) -> Run:
        """One run of the converted network for each image of the batch."""
        assert contender.onnx is not None
        try:
            arrays = arrays_of(inputs)
            network = network_for(contender.onnx, [array.shape[1:] for array in arrays], cell.threads)
            network.run([array[:1] for array in arrays])
        except ValueError as error:
            raise UsageError(self.refusal(contender.name, shapes_of(inputs), error)) from error
        return lambda: network.run(arrays)

    def classifier(self, contender: Contender, threads: int, device: str) -> nn.Module:
        """The ONNX file on the CPU."""
        assert contender.onnx is not None
        return NcnnClassifier(contender.onnx, threads)


class NcnnClassifier(nn.Module):
    """An ONNX file under ncnn, as a module that scores images."""

    def __init__(self, path: Path, threads: int):
        super().__init__()
        shape = onnx_input_shape(path)
        if shape is None:
            raise UsageError(f"{path} takes images of any size, and ncnn those of one; leave ncnn out")
        self.network = network_for(path, [shape], threads)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `(N, classes)` of images `(N, C, H, W)`.

        Raises:
            ValueError: they have another shape or type than the network was converted for.
        """
        return torch.from_numpy(self.network.run(arrays_of(Inputs.of(images)))[0])
