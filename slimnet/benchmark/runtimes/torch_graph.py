"""CUDA graphs: a forward of torch that is captured once and replayed."""

import functools

import torch
from torch import nn

from slimnet.benchmark.runtimes.runtime import MakeTimer
from slimnet.benchmark.runtimes.torch import Torch
from slimnet.benchmark.turns import Run
from slimnet.modules.example_inputs import Inputs

WARM_UPS = 3


class TorchGraph(Torch):
    """Modules captured as CUDA graphs."""

    name = "torch.graph"
    is_variant = True

    def obstacle(self, device: str) -> str | None:
        """The missing GPU."""
        if device != "cpu":
            return None
        return f"{self.name} replays CUDA graphs, which {device} has not; measure on cuda, or leave it out"

    def run(self, model: nn.Module, inputs: Inputs) -> Run:
        """One replay of the captured forward."""
        return graph_run(model, inputs)

    def layer_timers(self, device: str) -> MakeTimer | None:
        """None: the graph is replayed as one unit."""
        return None


def graph_run(model: nn.Module, inputs: Inputs) -> Run:
    """The forward captured as a CUDA graph: a call replays its kernels, without Python and single launches."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            inputs.call_directly(model)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # A stream of this GPU: torch's default capture stream belongs to the GPU of the first capture.
    with torch.cuda.graph(graph, stream=side):
        output = inputs.call_directly(model)

    def replay() -> object:
        graph.replay()
        return output

    # The graph has the addresses of weights and inputs, but does not keep them alive.
    return functools.partial(kept_alive, replay, model, inputs)


def kept_alive(run: Run, *_: object) -> object:
    """A run that keeps other objects alive."""
    return run()
