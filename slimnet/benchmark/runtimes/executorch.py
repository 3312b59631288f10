"""ExecuTorch with XNNPACK on the CPU, an optional extra."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from slimnet.benchmark.contender import Cell, Contender
from slimnet.benchmark.runtimes.executorch_layers import ExecuTorchLayers
from slimnet.benchmark.runtimes.layer_timer import LayerTimer
from slimnet.benchmark.runtimes.runtime import MakeTimer, Runtime, obstacle_on_cpu, shapes_of
from slimnet.benchmark.turns import Run
from slimnet.errors import ExportError, UsageError
from slimnet.export.capture import private_copy
from slimnet.export.executorch_model import LoweredNetwork, load_executorch, lowered, threads_in_use, use_threads
from slimnet.modules.example_inputs import Inputs
from slimnet.version import NOT_INSTALLED, installed_version


class ExecuTorch(Runtime):
    """Modules lowered for the shapes of the inputs, run in float32 by XNNPACK where it has a kernel."""

    name = "executorch"
    needs = "module"
    on_request = True

    def versions(self) -> Mapping[str, str]:
        """The version of ExecuTorch, which is not imported for it."""
        version = installed_version(self.name)
        return {} if version == NOT_INSTALLED else {self.name: version}

    def obstacle(self, device: str) -> str | None:
        """A GPU, or a package that is missing or does not load."""
        return obstacle_on_cpu(self.name, device, load_executorch)

    def prepare(self, contender: Contender, cell: Cell, inputs: Inputs) -> Run:
        """One run of the lowered module."""
        assert contender.model is not None
        given = inputs.map(lambda tensor: tensor.detach().cpu().contiguous())
        use_threads(cell.threads)
        try:
            network = lowered_network(contender.model, given, contender.name)
            network.run(given.tensors)
        except (ExportError, ValueError) as error:
            raise UsageError(self.refusal(contender.name, shapes_of(inputs), error)) from error
        tensors = given.tensors
        return lambda: network.run_again(tensors)

    def layer_timers(self, device: str) -> MakeTimer | None:
        """Times from ExecuTorch's own record of each forward."""
        return self.time_operators

    def time_operators(self, contender: Contender, cell: Cell, inputs: Inputs, prefix: Path) -> LayerTimer:
        """The timer of the operators of a contender's module."""
        assert contender.model is not None
        given = inputs.map(lambda tensor: tensor.detach().cpu().contiguous())
        use_threads(cell.threads)
        try:
            network = lowered_network(contender.model, given, contender.name, layer_times=True)
            return ExecuTorchLayers(network, private_copy(contender.model), given)
        except (ExportError, ValueError) as error:
            raise UsageError(self.refusal(contender.name, shapes_of(inputs), error)) from error

    def classifier(self, contender: Contender, threads: int, device: str) -> nn.Module:
        """The module on the CPU."""
        assert contender.model is not None
        use_threads(threads)
        return ExecuTorchClassifier(contender.model, contender.name)

    @contextmanager
    def session(self) -> Iterator[None]:
        """The number of threads, which is that of the process, is afterwards what it was."""
        before = threads_in_use()
        try:
            yield
        finally:
            use_threads(before)


class ExecuTorchClassifier(nn.Module):
    """A module under ExecuTorch that scores images, lowered for the first batch; later ones must not be larger."""

    def __init__(self, model: nn.Module, name: str):
        super().__init__()
        self._source, self._name = [private_copy(model)], name
        self._network: LoweredNetwork | None = None
        self._batch = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits `(N, classes)` of images `(N, C, H, W)`; a smaller batch is filled up with zeros.

        Raises:
            ExportError: the module cannot be lowered.
            ValueError: the images are of another shape or type, or more, than the first ones.
        """
        if self._network is None:
            self._network = lowered_network(self._source[0], Inputs.of(images), self._name)
            self._batch = len(images)
        missing = max(0, self._batch - len(images))
        filled = torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing else images
        return self._network.run([filled.contiguous()])[0][: len(images)]


def lowered_network(model: nn.Module, inputs: Inputs, name: str, *, layer_times: bool = False) -> LoweredNetwork:
    """A module lowered in memory for inputs of exactly these shapes.

    Raises:
        ExportError: ExecuTorch lacks an operator, or the module cannot be captured.
    """
    return LoweredNetwork(lowered(private_copy(model), inputs, name), inputs, layer_times=layer_times)
