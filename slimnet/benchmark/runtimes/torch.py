"""Eager torch, on the CPU or a GPU."""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from slimnet.benchmark.contender import Cell, Contender
from slimnet.benchmark.runtimes.layer_timer import LayerTimer
from slimnet.benchmark.runtimes.runtime import MakeTimer, Runtime
from slimnet.benchmark.runtimes.torch_layers import TorchLayers
from slimnet.benchmark.turns import Run, Stopwatch, wall_clock
from slimnet.modules.example_inputs import Inputs


class Torch(Runtime):
    """Modules run eagerly, op by op."""

    name = "torch"
    needs = "module"

    def versions(self) -> Mapping[str, str]:
        """The version of torch."""
        return {"torch": torch.__version__}

    def obstacle(self, device: str) -> str | None:
        """None: `Settings` accepts only devices that torch has."""
        return None

    def prepare(self, contender: Contender, cell: Cell, inputs: Inputs) -> Run:
        """One forward of a copy of the module on the device."""
        assert contender.model is not None
        model = copy.deepcopy(contender.model).eval().to(cell.device)
        return self.run(model, inputs.map(lambda tensor: tensor.to(cell.device)))

    def run(self, model: nn.Module, inputs: Inputs) -> Run:
        """One forward of a prepared module, on inputs on its device."""
        return lambda: inputs.call_directly(model)

    def classifier(self, contender: Contender, threads: int, device: str) -> nn.Module:
        """A copy of the module on the device."""
        assert contender.model is not None
        return copy.deepcopy(contender.model).to(device)

    def layer_timers(self, device: str) -> MakeTimer | None:
        """Times by hooks around each module."""
        return time_modules

    def stopwatch(self, device: str) -> Stopwatch:
        """The clock, or on a GPU events in its stream."""
        return wall_clock() if device == "cpu" else cuda_stopwatch


def time_modules(contender: Contender, cell: Cell, inputs: Inputs, prefix: Path) -> LayerTimer:
    """The timer of a contender's modules, which writes no files."""
    assert contender.model is not None
    return TorchLayers(contender.model, inputs, cell.device)


def cuda_stopwatch(run: Run, repeats: int) -> float:
    """The time of runs on the GPU by events in its stream, from before the first kernel to after the last."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / repeats
