"""The time of every layer of a network under ExecuTorch, from its own record (ETDump) of each forward.

XNNPACK names its operators by kind and number, not by layer, and runs convolutions of 1×1 as linear layers. The layers
of a network are taken for XNNPACK's in the order in which both run; where their number or kinds do not fit, rows have
XNNPACK's names, and no MACs. Its times are whole microseconds.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from slimnet.benchmark.profile import OTHER
from slimnet.benchmark.runtimes.layer_timer import Forward, Key, LayerTimer
from slimnet.benchmark.runtimes.onnxruntime_layers import BETWEEN
from slimnet.benchmark.runtimes.torch_layers import marks, own_macs
from slimnet.export.executorch_model import Event, LoweredNetwork
from slimnet.modules.example_inputs import Inputs, batched

KINDS = {"Convolution": "conv", "Deconvolution": "conv", "Fully Connected": "linear"}
"""How XNNPACK's names of layers begin, with the kind."""

NATIVE, WHOLE = "native_call_", "Method::execute"
"""The beginning of the events of ExecuTorch's own kernels, and the event of the whole forward."""


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer: its path, kind and MACs, and whether it may run as a product of matrices."""

    path: str
    kind: str
    macs: int
    is_product: bool


class ExecuTorchLayers(LayerTimer):
    """A lowered network that records the time of its operators."""

    def __init__(self, network: LoweredNetwork, model: nn.Module, inputs: Inputs):
        self.network, self.tensors = network, inputs.tensors
        layers = layers_in_order(model, inputs)
        self.run()
        (first,) = network.recorded()
        self.keys = keys_of(first, layers)
        self.macs: Mapping[Key, int | None] = (
            {} if self.keys is None else {(layer.path, layer.kind): layer.macs for layer in layers}
        )

    def run(self) -> object:
        """One forward."""
        return self.network.run_again(self.tensors)

    def forwards(self) -> list[Forward]:
        """Milliseconds of every layer in each run, and of the other operators by kind."""
        return [by_row(events, self.keys) for events in self.network.recorded()[1:]]


def layers_in_order(model: nn.Module, inputs: Inputs) -> list[Layer]:
    """The layers in the order in which they run."""
    found = own_macs(model, inputs)
    with torch.no_grad(), marks(model, lambda: 0) as made:
        batched(inputs, 1).call(model)
    return [
        Layer(path, *found[path], found[path][0] == "linear" or is_pointwise(model.get_submodule(path)))
        for path, _ in made
        if path in found
    ]


def is_pointwise(module: nn.Module) -> bool:
    """Whether a module is a convolution of one pixel."""
    return isinstance(module, nn.modules.conv._ConvNd) and set(module.kernel_size) == {1}


def kind_of(event: Event) -> str | None:
    """The kind of layer that an operator of XNNPACK is; None for others."""
    return next((kind for name, kind in KINDS.items() if event.delegated and event.name.startswith(name)), None)


def keys_of(events: Sequence[Event], layers: Sequence[Layer]) -> list[Key] | None:
    """The rows of XNNPACK's layers in order; None if they are not those of the network."""
    ran = [kind for event in events if (kind := kind_of(event)) is not None]
    if len(ran) != len(layers):
        return None
    fits = all(layer.kind == kind or layer.is_product for layer, kind in zip(layers, ran, strict=True))
    return [(layer.path, layer.kind) for layer in layers] if fits else None


def by_row(events: Sequence[Event], keys: Sequence[Key] | None) -> Forward:
    """Milliseconds of every row of one forward; what no operator took is a row too."""
    times: defaultdict[Key, float] = defaultdict(float)
    left = None if keys is None else iter(keys)
    whole = 0.0
    for event in events:
        if event.name == WHOLE:
            whole = event.milliseconds
        elif event.delegated or event.name.startswith(NATIVE):
            times[row_of(event, left)] += event.milliseconds
    times[(BETWEEN, OTHER)] = max(0.0, whole - sum(times.values()))
    return dict(times)


def row_of(event: Event, left: Iterator[Key] | None) -> Key:
    """The row of an operator: that of the next layer, or that of all operators of its name."""
    kind = kind_of(event)
    if kind is not None:
        return (event.name, kind) if left is None else next(left)
    return (event.name.removeprefix(NATIVE).partition(" (")[0].partition(" #")[0], OTHER)
