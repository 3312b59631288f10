"""Which channels may be projected onto zero for good, so that training goes on exactly as it would with them.

A BatchNorm channel with γ = β = 0 emits 0. Where all that follows it up to a ReLU or ReLU6 is 0 as well, no gradient
comes back: the derivative of both at 0 is 0. γ and β get none, and L2, weight decay and L1 leave zero at zero. So they
stay there under every optimiser of which the moments of both are zero too. Whatever is read of such a channel is 0,
for any weights, so that the loss is a function of the other parameters alone, and these train as if it were not there.

That is about training, where every other parameter may take any value. So nothing here looks at a weight, at
statistics, or at a constant that is not 0: a filter that is zero now gets a gradient, and a constant β is trained.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from slimnet.graph.channel_graph import ChannelGraph, Depthwise, Norm, Pointwise, Reader, Step
from slimnet.graph.reasons import Place
from slimnet.planning.dead_channels import DeadChannels
from slimnet.planning.liveness import Needs
from slimnet.planning.make_plan import Basis
from slimnet.torch_state.precision import as_array, numbers
from slimnet.tracing.ops.registry import spec_of

NEGATIVE = torch.tensor([-1.0, 0.0], dtype=torch.float64, device="cpu")
"""What such an op makes 0."""

WIDE = torch.tensor([-9.0, -1.0, 1.0, 9.0], dtype=torch.float64, device="cpu")
"""What only an op that changes nothing leaves as it is."""

Channels = dict[str, tuple[int, ...]]
"""Positions of each γ by name."""


@dataclass(frozen=True)
class Stays:
    """Dead channels of a γ that must not be projected, and why."""

    scale: str
    channels: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        return f"{len(self.channels)} dead of {self.scale} stay: {self.reason}"


@dataclass(frozen=True)
class InvariantSet:
    """The channels whose γ and β may become zero for good: positions by the name of γ.

    `shifts` names the β of every γ that has one; `stays` are the other dead channels. `basis` is what a cut of the
    projected channels is planned from.
    """

    channels: Channels
    shifts: Mapping[str, str]
    stays: tuple[Stays, ...]
    basis: Basis

    @property
    def count(self) -> int:
        """How many channels there are."""
        return sum(map(len, self.channels.values()))

    @property
    def zeros(self) -> np.ndarray:
        """For every label of the graph whether it is 0 once the set is projected."""
        return self.basis.constants == 0


def find_invariant_set(
    graph: ChannelGraph, dead: Mapping[str, tuple[int, ...]], threshold: float, largest_shift: float
) -> InvariantSet:
    """The channels that may be projected: those `dead` by γ, and those behind them whose input is always 0.

    The latter are BatchNorms behind a depthwise convolution. A channel with β above `largest_shift` stays.
    """
    search = Search(graph, dead, largest_shift)
    zeros = search.run()
    channels = {name: positions(found) for name, found in search.projected.items() if found.any()}
    pins = tuple((total.rows.reshape(-1), total.where) for total in graph.sums if total.kind != "sum")
    return InvariantSet(
        channels=channels,
        shifts={name: norm.shift for name, norm in search.norms.items() if norm.shift},
        stays=tuple(search.stays()),
        basis=Basis(
            graph,
            DeadChannels(f"|γ| < {threshold:g}, at zero for good", threshold, channels),
            np.where(zeros, 0.0, np.nan),
            training_needs(graph, zeros),
            pins,
            packed=False,
        ),
    )


def positions(found: np.ndarray) -> tuple[int, ...]:
    """Where an array is true."""
    return tuple(found.nonzero()[0].tolist())


@dataclass(frozen=True)
class Scale:
    """A γ: the BatchNorms that apply it, the name of their β and its values; `obstacle` says why none can be zero."""

    uses: tuple[Norm, ...]
    shift: str
    values: np.ndarray
    obstacle: str


def scales_of(graph: ChannelGraph) -> dict[str, Scale]:
    """Every γ that is a parameter, by name."""
    parameters = graph.tensors.parameters
    uses: dict[str, list[Norm]] = {}
    for name, norm in graph.norms:
        if name in parameters:
            uses.setdefault(name, []).append(norm)
    betas = shifts_of(graph, uses)
    owners = Counter(beta for found in betas.values() for beta in found if beta)
    elsewhere = {known.parameter for known in graph.known}
    result = {}
    for name, norms in uses.items():
        beta = next(iter(betas[name])) or ""
        values = as_array(numbers(parameters[beta])) if beta else np.zeros(norms[0].out.size)
        if len(betas[name]) > 1 or "" in betas[name] or owners[beta] > 1:
            obstacle = "its β is not its own"
        elif {name, beta} & elsewhere:
            obstacle = "its γ or β is used outside the BatchNorm"
        else:
            obstacle = ""
        result[name] = Scale(tuple(norms), beta, np.asarray(values, dtype=np.float64), obstacle)
    return result


def shifts_of(graph: ChannelGraph, uses: Mapping[str, Sequence[Norm]]) -> dict[str, set[str | None]]:
    """The names of the β beside each γ: "" for one that is no parameter, None where a BatchNorm has none."""
    names = {id(tensor): name for name, tensor in reversed(graph.tensors.parameters.items())}
    found: dict[str, set[str | None]] = {}
    for name, norms in uses.items():
        shifts = [norm.vectors[1] for norm in norms]
        found[name] = {names.get(id(shift()), "") if shift else None for shift in shifts}
    return found


class Search:
    """Finds the largest set: takes all dead channels in, and those out that would get a gradient, until none does."""

    def __init__(self, graph: ChannelGraph, dead: Mapping[str, tuple[int, ...]], largest_shift: float) -> None:
        self.graph = graph
        self.norms = scales_of(graph)
        self.dead = {
            name: np.isin(np.arange(scale.values.size), dead.get(name, ())) for name, scale in self.norms.items()
        }
        self.fits = {name: (scale.values <= largest_shift) & (not scale.obstacle) for name, scale in self.norms.items()}
        self.largest_shift = largest_shift
        self.exposed = {name: np.zeros(scale.values.size, dtype=bool) for name, scale in self.norms.items()}
        self.projected: dict[str, np.ndarray] = {}
        self.blocking = [blocks(graph, number) for number in range(len(graph.steps))]
        self.zeros = np.zeros(graph.size, dtype=bool)

    def run(self) -> np.ndarray:
        """For every label whether it is 0 whatever the other parameters are, once the set is projected."""
        while True:
            self.zeros = self.propagate()
            reached = self.reached()
            caught = False
            for name, scale in self.norms.items():
                for norm in scale.uses:
                    new = self.projected[name] & reached[norm.out]
                    self.exposed[name] |= new
                    caught |= bool(new.any())
            if not caught:
                return self.zeros

    def propagate(self) -> np.ndarray:
        """Follow the zeros forward; also chooses what is `projected`."""
        self.projected = {name: self.dead[name] & self.fits[name] & ~self.exposed[name] for name in self.norms}
        zeros = np.zeros(self.graph.size, dtype=bool)
        for known in self.graph.known:
            if known.parameter is None:
                zeros[known.labels] = as_array(known.tensor.reshape(-1) == 0)
        for step in self.graph.steps:
            if isinstance(step, Pointwise):
                operands = [torch.from_numpy(np.where(zeros[operand], 0.0, np.nan)) for operand in step.operands]
                zeros[step.out] = step.constant(operands).numpy() == 0
            elif isinstance(step, Norm):
                if step.scale in self.norms:
                    zeros[step.out] = self.normed(step.scale, zeros[step.inputs])
            elif isinstance(step, Depthwise) and step.bias is None:
                zeros[step.outputs] = zeros[step.inputs].repeat(step.outputs.size // step.inputs.size)
        return zeros

    def normed(self, name: str, inputs: np.ndarray) -> np.ndarray:
        """Which outputs of a BatchNorm are 0; one whose input is always 0 can be projected whatever its γ is."""
        if len(self.norms[name].uses) == 1:
            self.projected[name] = self.projected[name] | (inputs & self.fits[name] & ~self.exposed[name])
        return self.projected[name]

    def reached(self) -> np.ndarray:
        """For every label whether a gradient may come to it."""
        found = np.zeros(self.graph.size, dtype=bool)
        for pin in self.graph.pins:
            found[pin.labels] = True
        for total in self.graph.sums:
            found[total.rows] = True
        for number, step in reversed(list(enumerate(self.graph.steps))):
            if isinstance(step, Pointwise):
                for operand in step.operands:
                    found[operand[found[step.out] & ~(self.zeros[operand] & self.blocking[number])]] = True
            elif isinstance(step, Norm):
                stopped = self.projected.get(step.scale or "", np.zeros(step.out.size, dtype=bool))
                found[step.inputs[found[step.out] & ~stopped]] = True
            elif isinstance(step, Reader):
                found[inputs_of(step, found[step.outputs])] = True
            else:
                found[step.inputs.repeat(step.outputs.size // step.inputs.size)[found[step.outputs]]] = True
        return found

    def stays(self) -> Iterator[Stays]:
        """The dead channels that are not projected, with reasons."""
        left = {name: self.dead[name] & ~self.projected[name] for name in self.norms}
        caught = {name: left[name] & self.fits[name] for name in self.norms}
        exposures = Exposures(self, caught)
        for name, scale in self.norms.items():
            above = left[name] & ~self.fits[name]
            if above.any():
                yield Stays(name, positions(above), scale.obstacle or f"β is above {self.largest_shift:g}")
            reasons: dict[str, list[int]] = {}
            for channel in positions(caught[name]):
                reasons.setdefault(exposures.reason(name, channel), []).append(channel)
            for reason, channels in reasons.items():
                yield Stays(name, tuple(channels), reason)

    def place(self, number: int) -> Place:
        """Where a step is."""
        step = self.graph.steps[number]
        if isinstance(step, Reader | Depthwise):
            return Place(module=step.module)
        return self.graph.ops[self.graph.step_ops[number]].place


class Exposures:
    """Where a gradient comes to dead channels from, found in one walk over the steps for all of them.

    `origin[label]` is the number of the channel that a label follows from without any reason so far, 0 for none.
    """

    def __init__(self, search: Search, caught: Mapping[str, np.ndarray]) -> None:
        self.search = search
        self.numbers: dict[tuple[str, int], int] = {}
        self.origin = np.zeros(search.graph.size, dtype=np.int64)
        for name, scale in search.norms.items():
            for channel in positions(caught[name]):
                number = self.numbers[name, channel] = len(self.numbers) + 1
                for norm in scale.uses:
                    self.origin[norm.out[channel]] = number
        self.found: dict[int, str] = {}
        if self.numbers:
            self.walk()

    def reason(self, name: str, channel: int) -> str:
        """Why a channel stays."""
        return self.found.get(
            self.numbers[name, channel], "it comes out of the network, or is read where it cannot be followed"
        )

    def walk(self) -> None:
        """Follow the channels up to the first step that gives each a reason."""
        for number, step in enumerate(self.search.graph.steps):
            if isinstance(step, Norm):
                continue
            operands = step.operands if isinstance(step, Pointwise) else (step.inputs,)
            met = np.max([self.origin[operand] for operand in operands], axis=0)
            if not met.any():
                continue
            reason = self.reason_at(number)
            if reason:
                for each in np.unique(met[met > 0]).tolist():
                    self.found.setdefault(each, reason)
            elif isinstance(step, Pointwise):
                self.origin[step.out] = met
            elif isinstance(step, Depthwise):
                self.origin[step.outputs] = met.repeat(step.outputs.size // step.inputs.size)

    def reason_at(self, number: int) -> str:
        """What a step does to a channel that it reads; "" where that has to be seen further on."""
        step, place = self.search.graph.steps[number], self.search.place(number)
        if isinstance(step, Reader):
            return f"no ReLU or ReLU6 stands before {place.module or 'the network itself'}"
        if not isinstance(step, Pointwise) or self.search.blocking[number]:
            return ""
        if len(step.operands) > 1:
            return f"{place} joins it with channels that are not 0"
        changes = not np.array_equal(step.constant([WIDE]).numpy(), WIDE.numpy())
        return f"{place} lets a gradient through at 0" if changes else ""


def blocks(graph: ChannelGraph, number: int) -> bool:
    """Whether a step is an op whose value and derivative at 0 are 0 (ReLU6 is hardtanh between 0 and 6)."""
    step: Step = graph.steps[number]
    op = graph.ops[graph.step_ops[number]]
    needed = spec_of(op.name).flat_at_zero
    if not isinstance(step, Pointwise) or len(step.operands) != 1 or needed is None:
        return False
    first = tuple(value for value in op.numbers if isinstance(value, int | float))[: len(needed)]
    # What an op in place does to views of its tensor is recorded under its name too.
    return first == needed and not step.constant([NEGATIVE]).numpy().any()


def inputs_of(reader: Reader, rows: np.ndarray) -> np.ndarray:
    """The labels that some outputs `(O,)` of a layer are computed from, whatever its weights are."""
    groups = rows.reshape(reader.groups, -1).any(1)
    return reader.inputs.reshape(reader.groups, -1)[groups].reshape(-1)


def training_needs(graph: ChannelGraph, zeros: np.ndarray) -> Needs:
    """What is needed of the network's values in training, where any weight may become any number.

    What is 0 needs only the zeros that it is computed from.
    """
    live = np.zeros(graph.size, dtype=bool)
    for pin in graph.pins:
        live[pin.labels] = True
    for total in graph.sums:
        live[total.rows] = True
    reads: list[np.ndarray] = []
    for step in reversed(graph.steps):
        if isinstance(step, Pointwise | Norm):
            for operand in step.operands:
                live[operand[live[step.out] & (~zeros[step.out] | zeros[operand])]] = True
        elif isinstance(step, Depthwise):
            inputs = np.repeat(step.inputs, step.outputs.size // step.inputs.size)
            live[inputs[live[step.outputs] & (~zeros[step.outputs] | zeros[inputs])]] = True
        else:
            groups = live[step.outputs].reshape(step.groups, -1).any(1)
            read = np.repeat(groups, step.inputs.size // step.groups)
            live[step.inputs[read]] = True
            reads.append(read)
    return Needs(live, tuple(reversed(reads)))
