"""torch.compile: kernels generated for the network and its inputs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from slimnet.benchmark.runtimes.runtime import MakeTimer
from slimnet.benchmark.runtimes.torch import Torch
from slimnet.benchmark.turns import Run
from slimnet.errors import reason
from slimnet.modules.example_inputs import Inputs


class TorchCompile(Torch):
    """Modules compiled for one shape of inputs."""

    name = "torch.compile"
    is_variant = True
    on_request = True

    def run(self, model: nn.Module, inputs: Inputs) -> Run:
        """One forward of the compiled module."""
        model.compile(dynamic=False)
        return super().run(model, inputs)

    def layer_timers(self, device: str) -> MakeTimer | None:
        """None: the modules are compiled into one unit."""
        return None

    @contextmanager
    def session(self) -> Iterator[None]:
        """Discard compiled code afterwards."""
        try:
            yield
        finally:
            torch.compiler.reset()

    def refusal(self, name: str, given: str, error: Exception) -> str:
        """As for other runtimes, with the compiler's name if compilation failed."""
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            return f"{self.name} cannot compile {name} here: {reason(error)}; leave {self.name} out"
        return super().refusal(name, given, error)
