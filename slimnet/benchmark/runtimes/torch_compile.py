"""torch.compile: kernels generated for the network and its inputs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from slimnet.benchmark.latency import Run
from slimnet.benchmark.runtimes.runtime import MakeTimer
from slimnet.benchmark.runtimes.torch import Torch
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
        """None: compiled modules run as one."""
        return None

    @contextmanager
    def session(self) -> Iterator[None]:
        """Forget in the end what was compiled."""
        try:
            yield
        finally:
            torch.compiler.reset()

    def refusal(self, name: str, given: str, error: Exception) -> str:
        """Names the compiler where it is what failed."""
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            return f"{self.name} does not manage {name} here: {reason(error)}; leave {self.name} out"
        return super().refusal(name, given, error)
