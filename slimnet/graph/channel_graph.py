"""The channel graph: the result of a trace, as data.

Every value that an op computes for a channel gets a label of its own, so that constants and uses can be distinguished
step by step; labels that must be cut together are joined into *channel sets*.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch

from slimnet.graph.data_run import DataRun
from slimnet.graph.labels import Labels
from slimnet.graph.reasons import Place, Reason
from slimnet.graph.sizes import SizeUse
from slimnet.modules.tensors import Named, Tensors
from slimnet.torch_state.precision import Numbers, numbers

Constants = torch.Tensor
"""The values of some channels, float64; NaN where a value is not the same for every input."""


Value = Callable[[], torch.Tensor]
"""How to compute a tensor that does not depend on the network's input."""


class Pointwise(NamedTuple):
    """An op that computes each channel of its output from the same channel of its operands.

    `operands[k][j]` and `out[j]` are labels. `constant` maps the operands' constants to the output's.
    """

    operands: tuple[Labels, ...]
    out: Labels
    constant: Callable[[Sequence[Constants]], Constants]


SILENT = 2.0**-80
"""The γ that the surgery gives to a kept channel whose γ must be zero; smaller ones are zero as well.

γ · x̂ then vanishes in the rounding of β + γ · x̂, in double precision too. It is not exactly zero, since torch's
quantisation-aware training divides by γ. Because only γ changes, it works for any input of the BatchNorm: shared and
grouped layers, sums, or the network's input. In float16 it is zero.
"""


class Norm(NamedTuple):
    """A BatchNorm: y = (x − μ) / √(σ² + ε) · γ + β for each channel, with the labels of x and y.

    `vectors` are γ, β, μ and σ²; γ and β are None without affine parameters, μ and σ² where batch statistics are used.
    `scale` is the name of γ if that is a parameter.
    """

    inputs: Labels
    out: Labels
    vectors: tuple[Value | None, ...]
    eps: float
    scale: str | None

    @property
    def operands(self) -> tuple[Labels, ...]:
        """Its only operand x, as of a pointwise op."""
        return (self.inputs,)


class Reader(NamedTuple):
    """A convolution or linear layer that mixes channels: a fold site for every channel it reads.

    `inputs` are K labels and `outputs` O; the weight has O × K / groups taps per kernel position, with the input
    channels on `in_axis`. `weight` is None if it is computed from parameters. `uniform` means that a constant input
    gives the same output at every position (no zero padding), so that it can be folded into the bias; otherwise it
    needs a carrier. `bias_name` is the bias, or the name of one that can be added to the module.
    """

    inputs: Labels
    outputs: Labels
    groups: int
    uniform: bool
    weight: str | None
    in_axis: int
    value: Value
    bias: Value | None
    bias_name: str | None
    module: str
    kind: str
    macs: int

    @property
    def at(self) -> Place:
        """The module of the layer."""
        return Place(module=self.module)

    def taps(self) -> torch.Tensor:
        """The weight as `(O, K / groups, taps)`."""
        return self.grouped_taps().flatten(0, 1)

    def grouped_taps(self) -> torch.Tensor:
        """The weight as `(groups, O / groups, K / groups, taps)`."""
        return self._by_group(self.value().detach())

    def grouped_numbers(self) -> Numbers:
        """The values of `grouped_taps`, as an array if NumPy supports their type."""
        return self._by_group(numbers(self.value()))

    def _by_group(self, weight: Any) -> Any:
        per_group = weight.reshape(self.groups, weight.shape[0] // self.groups, weight.shape[1], -1)
        return per_group if self.in_axis == 1 else per_group.swapaxes(1, 2)


class Depthwise(NamedTuple):
    """A depthwise convolution, with one input channel per group: it does not mix channels."""

    inputs: Labels
    outputs: Labels
    uniform: bool
    value: Value
    bias: Value | None
    weight: str | None
    module: str
    macs: int


Step = Pointwise | Norm | Reader | Depthwise


class KnownTensor(NamedTuple):
    """Labels with the values of a tensor; `parameter` is its name if it is one."""

    labels: Labels
    tensor: torch.Tensor
    parameter: str | None = None


@dataclass(frozen=True)
class Pin:
    """Labels that must be kept, and the reason; `read` is whether an op depends on their values.

    `op` is the index of the op that pins them.
    """

    labels: Labels
    reason: Reason
    read: bool = True
    op: int = 0


@dataclass(frozen=True)
class ChannelReduction:
    """Labels `(sums, channels)` of which each row is reduced to one value: only zeros can be removed.

    `out` are labels `(sums,)` of the results. `kind` is "sum", "mean", "max" or "moments"; from a maximum every
    constant except the largest can be removed, from the moments of a LayerNorm every constant. `indices` is the label
    of the indices of the largest values, if the op returns them.
    """

    rows: Labels
    out: Labels
    where: Reason
    kind: str = "sum"
    indices: Labels | None = None


@dataclass(frozen=True)
class SplitAxis:
    """An axis of channels that the code divides: their labels on a grid, one axis of which may become narrower.

    All rows along that axis must keep the same number of channels. The ops do not show which axis it is: `free` are the
    candidates, in the order in which they are tried. If it is none of them, the code may hard-code positions: then the
    labels `fixed` must be kept, and no others. `op` is the index of the op that divides the axis.
    """

    grid: Labels
    where: Place
    op: int
    free: tuple[int, ...] = (-1,)
    fixed: Labels | None = None

    def along(self, axis: int) -> Labels:
        """The rows `(parts, channels)` along one axis of the grid."""
        return np.moveaxis(self.grid, axis, -1).reshape(-1, self.grid.shape[axis])

    @property
    def rows(self) -> Labels:
        """The rows along the last axis: adjacent channels."""
        return self.along(-1)


ActivationKey = tuple[str, str, int]
"""Module path, op, and how many times that op ran in that module before."""


@dataclass(frozen=True)
class Activation:
    """The output `(N, C, ...)` of an activation function: its labels `(C,)`, and the key of the call."""

    labels: Labels
    key: ActivationKey


class CountedNorm(NamedTuple):
    """A normalisation without tensors, whose module has an attribute for how many `labels` `(C,)` there are.

    These are its channels, or one channel of each of its groups.
    """

    module: str
    attribute: str
    labels: Labels


class Op(NamedTuple):
    """One dispatched op: its name, where it was called, the labels of its tensors, and the numbers among its arguments.

    `shape` is that of its output if it is a view of channels.
    """

    name: str
    module: str
    line: str
    touched: tuple[Labels, ...]
    numbers: tuple[Any, ...] = ()
    shape: tuple[int, ...] = ()

    @property
    def place(self) -> Place:
        """Where it was called."""
        return Place(self.name, self.module, self.line)

    def __str__(self) -> str:
        return str(self.place)


FROZEN_NORM = ("weight", "bias", "running_mean", "running_var")
"""The buffers `(C,)` of a FrozenBatchNorm2d."""


class Stop(NamedTuple):
    """Where a forward begins to depend on data, at the first op that does.

    `watched` are the paths of the largest modules whose outputs are read behind it. Where the trace went on with the
    answers of a `run`, `behind` are those of the modules that were followed there and return nothing that can be cut,
    and `whole` says whether it came to the end of the forward. `traced` are the parameters and buffers used up to where
    the trace ended, in order, `reused` those among them that the rest of the forward uses again. `unsteady` are modules
    that were followed and do something else for another number of rows.
    """

    place: Place
    watched: tuple[str, ...]
    traced: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    run: DataRun | None = None
    whole: bool = False
    unsteady: frozenset[str] = frozenset()


def returned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, as the `Value` of a tensor that is known."""
    return tensor


@dataclass(frozen=True)
class ChannelGraph:
    """Everything that one forward records about the channels of a network.

    `tensors` are the network's; `sets` is the number of the channel set of every label, from label 0; `vectors` are,
    for each parameter axis with channels, the labels `(C,)` with which it is cut; `step_ops` is the index of each
    step's op; `macs` are the multiply-accumulates of convolutions and linear layers for one example; `used` are the
    parameters and buffers that any op reads, with the number of these ops; `paddings` are channels that were added as
    padding; `uses` are the sizes that ops were given of which it is known from what the code computes them. `stop` is
    where the forward begins to depend on data, if it does.
    """

    tensors: Tensors
    size: int
    known: tuple[KnownTensor, ...]
    sets: np.ndarray
    vectors: dict[tuple[str, int], Labels]
    steps: tuple[Step, ...]
    step_ops: tuple[int, ...]
    pins: tuple[Pin, ...]
    parts: tuple[SplitAxis, ...]
    sums: tuple[ChannelReduction, ...]
    used: Mapping[str, int]
    activations: tuple[Activation, ...]
    paddings: tuple[Labels, ...]
    counted: tuple[CountedNorm, ...]
    ops: tuple[Op, ...]
    macs: int
    batch: int
    uses: tuple[SizeUse, ...] = ()
    stop: Stop | None = None

    @property
    def fixed(self) -> Labels:
        """Labels of channels that can never be removed, including 0."""
        positions = [parts.fixed for parts in self.parts if parts.fixed is not None and not parts.free]
        return np.concatenate([[0], *(pin.labels for pin in self.pins), *positions])

    @cached_property
    def layers(self) -> tuple[Reader | Depthwise, ...]:
        """Convolutions and linear layers in execution order."""
        return tuple(step for step in self.steps if isinstance(step, Reader | Depthwise))

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """The fold sites in execution order."""
        return tuple(step for step in self.steps if isinstance(step, Reader))

    @cached_property
    def bias_readers(self) -> dict[str, set[int]]:
        """The indices of the readers that have a bias, or to which it can be added, by its name."""
        found: dict[str, set[int]] = {}
        for index, reader in enumerate(self.readers):
            if reader.bias_name is not None:
                found.setdefault(reader.bias_name, set()).add(index)
        return found

    @cached_property
    def read_elsewhere(self) -> frozenset[str]:
        """The parameters that other ops read than layers whose weight or bias they are: their values must stay."""
        own = Counter(layer.weight for layer in self.layers)
        own.update(reader.bias_name for reader in self.readers)
        return frozenset(name for name, count in self.used.items() if count > own[name] > 0)

    @cached_property
    def axes(self) -> tuple[tuple[str, Labels], ...]:
        """Every array of labels in `vectors` once, with the name of the first parameter that has it."""
        found: dict[int, tuple[str, Labels]] = {}
        for (name, _), labels in self.vectors.items():
            found.setdefault(id(labels), (name, labels))
        return tuple(found.values())

    @cached_property
    def axis_sets(self) -> tuple[np.ndarray, np.ndarray]:
        """The sets on all `axes`, concatenated, and the start of each axis."""
        sizes = [labels.size for _, labels in self.axes]
        return self.sets[np.concatenate([labels for _, labels in self.axes])], np.cumsum(sizes) - sizes

    @cached_property
    def norms(self) -> tuple[tuple[str, Norm], ...]:
        """The BatchNorms whose γ is a parameter, with its name, in execution order."""
        return tuple((step.scale, step) for step in self.steps if isinstance(step, Norm) and step.scale is not None)

    @property
    def scales(self) -> dict[str, Value]:
        """Every γ of a BatchNorm by name: those that are parameters, and those that are frozen as buffers."""
        found = {name: norm.vectors[0] for name, norm in self.norms if norm.vectors[0] is not None}
        return found | {name: partial(returned, tensor) for name, tensor in self.frozen_scales.items()}

    @property
    def frozen_scales(self) -> Named:
        """The buffer `weight` of each FrozenBatchNorm2d, whether of torchvision, detectron2 or another library.

        Its forward consists of elementwise ops on its buffers, so that constants propagate through it without a rule.
        """
        buffers = self.tensors.buffers
        found = {}
        for known in self.known:
            path, dot, last = (known.parameter or "").rpartition(".")
            others = [buffers.get(f"{path}{dot}{name}") for name in FROZEN_NORM]
            if last == "weight" and all(each is not None and each.shape == known.tensor.shape for each in others):
                found[known.parameter or ""] = known.tensor
        return found
