"""The channel graph: what a trace records, and nothing else.

Every value that an op computes for a channel gets a label of its own, so that constants and uses can be told
apart step by step; labels that must be cut together are joined by edges into *sets*.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch

from slimnet.graph.labels import Labels
from slimnet.graph.reasons import Place, Reason
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

γ · x̂ is then lost in the rounding of β + γ · x̂, in double precision as well. It is not zero itself, since torch's
quantisation-aware training divides by γ. As a change of γ alone it serves whatever stands before the BatchNorm: shared
and grouped layers, sums, nothing at all. In float16 it is zero.
"""


class Norm(NamedTuple):
    """A BatchNorm: y = (x − μ) / √(σ² + ε) · γ + β for each channel, with the labels of x and y.

    `vectors` are γ, β, μ and σ², None where it has none of its own (μ and σ² neither where it takes the batch's).
    `scale` is the name of γ where that is a parameter.
    """

    inputs: Labels
    out: Labels
    vectors: tuple[Value | None, ...]
    eps: float
    scale: str | None

    @property
    def operands(self) -> tuple[Labels, ...]:
        """What it reads: x alone, as a pointwise op."""
        return (self.inputs,)


class Reader(NamedTuple):
    """A convolution or linear layer that mixes channels: a fold site for every channel it reads.

    `inputs` are K labels and `outputs` O; the weight has O × K / groups taps per kernel position, with the input
    channels on `in_axis`. `weight` is None where it is computed from parameters. `uniform` says that a constant
    input gives the same output at every position (no zero padding), so that it can be folded into the bias; where
    not, only a carrier can hold it. `bias_name` is the bias, or the one the module can be given.
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
        """Where it is."""
        return Place(module=self.module)

    def taps(self) -> torch.Tensor:
        """The weight as `(O, K / groups, taps)`."""
        return self.grouped_taps().flatten(0, 1)

    def grouped_taps(self) -> torch.Tensor:
        """The weight as `(groups, O / groups, K / groups, taps)`."""
        return self._by_group(self.value().detach())

    def grouped_numbers(self) -> Numbers:
        """The numbers of `grouped_taps`, as an array where NumPy can read them."""
        return self._by_group(numbers(self.value()))

    def _by_group(self, weight: Any) -> Any:
        per_group = weight.reshape(self.groups, weight.shape[0] // self.groups, weight.shape[1], -1)
        return per_group if self.in_axis == 1 else per_group.swapaxes(1, 2)


class Depthwise(NamedTuple):
    """A convolution with one input channel per group: what happens to a channel stays in it."""

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
    """Labels with the values of a tensor, of which `parameter` is the name where it is one."""

    labels: Labels
    tensor: torch.Tensor
    parameter: str | None = None


@dataclass(frozen=True)
class Pin:
    """Labels that must stay, and why; `read` says whether that is since something looks at their values.

    `op` is the position of the op that pins them.
    """

    labels: Labels
    reason: Reason
    read: bool = True
    op: int = 0


@dataclass(frozen=True)
class ChannelReduction:
    """Labels `(sums, channels)` of channels that are made into one value each row: zeros may go, nothing else.

    `out` are labels `(sums,)` of the values. `kind` is "sum", "mean" or "max"; from a maximum any constant may go but
    the largest. `places` is the label of where the largest stand, where the code was told.
    """

    rows: Labels
    out: Labels
    where: Reason
    kind: str = "sum"
    places: Labels | None = None


@dataclass(frozen=True)
class SplitAxis:
    """An axis of channels that the code divides: their labels on a grid, of which one axis may become narrower.

    All rows along that axis must keep the same number of channels. Which axis it is the code alone knows: `free` are
    those that it may be, in the order in which they are tried. Where it is none of them, positions may be numbers in
    the code: then the labels `fixed` stay, and nothing else has to. `op` is the position of the op that divides.
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
        """The rows along the last axis: channels that stand side by side."""
        return self.along(-1)


ActivationKey = tuple[str, str, int]
"""Module path, op, and how many times that op ran in that module before."""


@dataclass(frozen=True)
class Activation:
    """The output `(N, C, ...)` of an activation function: its labels `(C,)` and which call it was."""

    labels: Labels
    key: ActivationKey


@dataclass(frozen=True)
class Padding:
    """Zero channels that a `PadShortcut` adds before and after its input's own."""

    module: str
    before: Labels
    after: Labels


class CountedNorm(NamedTuple):
    """A normalisation without tensors of its own, whose module all the same knows its number of channels `(C,)`."""

    module: str
    labels: Labels


class Op(NamedTuple):
    """One dispatched op: its name, where it was called, the labels it touched, and the numbers it computed with.

    `shape` is that of its output where it is a view of channels.
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


def returned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, where a way to compute one is wanted."""
    return tensor


@dataclass(frozen=True)
class ChannelGraph:
    """Everything one forward showed about the channels of a network.

    `tensors` are the network's own; `sets` holds for every label the number of the set it is cut with, that of label 0
    first; `vectors` for each parameter axis that carries channels labels `(C,)` that it is cut with; `step_ops` the
    position of each step's op; `macs` the multiply-accumulates of convolutions and linear layers for one example;
    `used` the parameters and buffers that any op touched.
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
    used: frozenset[str]
    activations: tuple[Activation, ...]
    paddings: tuple[Padding, ...]
    counted: tuple[CountedNorm, ...]
    ops: tuple[Op, ...]
    macs: int
    batch: int

    @property
    def fixed(self) -> Labels:
        """Labels of channels that can never go, 0 among them."""
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
        """Which of the readers have a bias, or can be given it, by its name."""
        found: dict[str, set[int]] = {}
        for index, reader in enumerate(self.readers):
            if reader.bias_name is not None:
                found.setdefault(reader.bias_name, set()).add(index)
        return found

    @cached_property
    def axes(self) -> tuple[tuple[str, Labels], ...]:
        """Every array of labels in `vectors` once, with the first parameter that it stands for."""
        found: dict[int, tuple[str, Labels]] = {}
        for (name, _), labels in self.vectors.items():
            found.setdefault(id(labels), (name, labels))
        return tuple(found.values())

    @cached_property
    def axis_sets(self) -> tuple[np.ndarray, np.ndarray]:
        """The sets on all `axes`, one axis after the other, and where each begins."""
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
        """The `weight` of each FrozenBatchNorm2d, of torchvision, detectron2 or anybody: one of its buffers.

        Its forward is arithmetic on these buffers. What it computes with a zero in their place follows by itself.
        """
        buffers = self.tensors.buffers
        found = {}
        for known in self.known:
            path, dot, last = (known.parameter or "").rpartition(".")
            others = [buffers.get(f"{path}{dot}{name}") for name in FROZEN_NORM]
            if last == "weight" and all(each is not None and each.shape == known.tensor.shape for each in others):
                found[known.parameter or ""] = known.tensor
        return found
