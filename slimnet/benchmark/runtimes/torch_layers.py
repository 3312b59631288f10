"""The time of every module of a network in torch, by hooks around each forward."""

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from slimnet.benchmark.profile import OTHER
from slimnet.benchmark.runtimes.layer_timer import Forward, Key, LayerTimer
from slimnet.counting import count_network
from slimnet.counting.torch_counter import counted
from slimnet.modules.example_inputs import Inputs, batched

Mark = tuple[str | None, Any]
"""A module's path when its forward begins, or None when the innermost forward ends; with the reading at that time."""


class TorchLayers(LayerTimer):
    """A copy of a network, in eval mode on a device, that records when every module begins and ends."""

    def __init__(self, model: nn.Module, inputs: Inputs, device: str):
        self.model = copy.deepcopy(model).eval().cpu()
        found = own_macs(self.model, inputs.map(lambda tensor: tensor.cpu()))
        self.macs = {(path, kind): count for path, (kind, count) in found.items()}
        self.keys: dict[str, Key] = {
            path: (path, found[path][0]) if path in found else (type(module).__name__, OTHER)
            for path, module in self.model.named_modules()
        }
        self.on_gpu = device != "cpu"
        self.model.to(device)
        self.inputs = inputs.map(lambda tensor: tensor.to(device))
        self.runs: list[list[Mark]] = []

    def run(self) -> object:
        """One forward."""
        with marks(self.model, self._now) as made:
            output = self.inputs.call_directly(self.model)
        self.runs.append(made)
        return output

    def forwards(self) -> list[Forward]:
        """Milliseconds of every module without its submodules, in each forward."""
        if self.on_gpu:
            torch.cuda.synchronize()
        found: list[Forward] = []
        for made in self.runs:
            times: defaultdict[Key, float] = defaultdict(float)
            for path, milliseconds in own(self._resolved(made)).items():
                times[self.keys[path]] += milliseconds
            found.append(dict(times))
        self.runs = []
        return found

    def _now(self) -> Any:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _resolved(self, made: Sequence[Mark]) -> list[tuple[str | None, float]]:
        """The marks in milliseconds since the first."""
        first = made[0][1]
        if self.on_gpu:
            return [(path, first.elapsed_time(at)) for path, at in made]
        return [(path, 1e3 * (at - first)) for path, at in made]


@contextmanager
def marks(model: nn.Module, read: Callable[[], Any]) -> Iterator[list[Mark]]:
    """Take a reading whenever a module's forward begins or ends, in the context."""
    made: list[Mark] = []
    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, path=path: made.append((path, read()))))
        handles.append(module.register_forward_hook(lambda *_: made.append((None, read()))))
    try:
        yield made
    finally:
        for handle in handles:
            handle.remove()


def own(made: Sequence[tuple[str | None, float]]) -> dict[str, float]:
    """The increase of the reading between marks, summed for the innermost module."""
    sums: defaultdict[str, float] = defaultdict(float)
    inside: list[str] = []
    before = 0.0
    for path, reading in made:
        if inside:
            sums[inside[-1]] += reading - before
        if path is None:
            inside.pop()
        else:
            inside.append(path)
        before = reading
    return dict(sums)


@torch.inference_mode(False)
def own_macs(model: nn.Module, inputs: Inputs) -> dict[str, tuple[str, int]]:
    """Kind and multiply-accumulates for one example of every module with MACs of its own, by path.

    The kind is "conv" or "linear", whichever has more MACs. fvcore counts, or torch's counter where it cannot. In
    inference mode linear layers would not be counted.
    """
    by_layer = count_network(model, inputs).by_layer
    if by_layer is not None:
        return dict(by_layer)
    one = batched(inputs, 1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter, marks(model, lambda: counted(counter)) as made:
        one.call(model)
    sums = {kind: own([(path, reading[kind]) for path, reading in made]) for kind in ("conv", "linear")}
    found = {}
    for path in dict.fromkeys(path for path, _ in made if path is not None):
        parts = {kind: int(sums[kind].get(path, 0)) for kind in sums}
        if any(parts.values()):
            found[path] = (max(parts, key=lambda kind: parts[kind]), sum(parts.values()))
    return found
