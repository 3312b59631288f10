"""Dense, masked and slim network on the same batches and random numbers, and how far their outputs are apart."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

import torch
from torch import nn

from slimnet.modules.copying import copy_with, eval_copy
from slimnet.modules.example_inputs import Inputs
from slimnet.modules.network import Network
from slimnet.surgery.equivalence import Distance, Distances, relative_difference, same_shapes, worse
from slimnet.surgery.output_difference import Difference
from slimnet.surgery.plan import SurgeryPlan
from slimnet.surgery.plan_data import DataStop
from slimnet.surgery.selection_order import RecordedSelections, run_in_order
from slimnet.surgery.watched_forward import Ran, Returned, run_watched
from slimnet.torch_state.devices import device_of
from slimnet.torch_state.random_state import RandomState

Tensors = Mapping[str, torch.Tensor]
NOTHING_CHANGED: Tensors = MappingProxyType({})


@dataclass(frozen=True)
class Networks:
    """The networks that a certificate compares.

    `masked` are the γ of the dense network of which the plan takes channels for zero, with these set to zero.
    `in_double` are the masked and the slim network in double precision, if they are compared in that as well.
    """

    dense: Network
    slim: Network
    masked: Tensors
    in_double: tuple[nn.Module, nn.Module] | None = None

    @classmethod
    def of(cls, dense: Network, slim: Network, plan: SurgeryPlan, *, float64: bool) -> "Networks":
        """The networks of a plan, with copies in double precision where that is asked for."""
        masked = masked_scales(dense, plan)
        doubled = (as_double(eval_copy(dense, masked)), as_double(slim)) if float64 else None
        return cls(dense, slim, masked, doubled)


@dataclass(frozen=True)
class Forward:
    """One batch, and where the random numbers stand: what every network is run on."""

    inputs: Inputs
    start: RandomState
    stop: DataStop | None

    def run(
        self, model: nn.Module | Network, changed: Tensors = NOTHING_CHANGED, replayed: Sequence[Returned] | None = None
    ) -> Ran:
        """Run a copy of a network with `changed` tensors; its watched modules return what is `replayed`, if given."""
        # Each copy is gone before the next is made, which is less than the slim network takes itself.
        self.start.restore()
        return run_watched(eval_copy(model, changed), self.inputs, self.stop, replayed)

    def run_twice(self, model: Network, changed: Tensors = NOTHING_CHANGED) -> tuple[Ran, Ran | None]:
        """Run a copy of a network, and run it again if the first call has changed what it keeps; None if not."""
        self.start.restore()
        copy = eval_copy(model, changed)
        first = run_watched(copy, self.inputs, self.stop)
        return first, run_watched(copy, self.inputs, self.stop) if has_changed(copy, model) else None

    def in_double(self, device: torch.device) -> "Forward":
        """The same, in double precision."""
        return replace(self, inputs=self.inputs.to(device).map(doubled_floats))


@dataclass
class Comparison:
    """Dense, masked and slim network on the same batches and random numbers: how far they are apart so far.

    With a `stop`, outputs are those of the watched modules in front of it. Then the slim network runs once more, with
    what the dense one's modules returned in the place of what its own do: `replayed` are the results of that, and
    `behind` is how far modules behind the stop are apart where they are given the same.

    `reordered` is whether the slim network sorts scores that are equal but for rounding in another order than the other
    ones, which then are compared with it in its order (see `selection_order`). `stateful` is whether the networks keep
    values from one call to the next, so that second calls were compared as well.
    """

    tolerance: float
    stop: DataStop | None = None
    to_dense: Difference = field(default_factory=Difference)
    to_masked: Difference = field(default_factory=Difference)
    replayed: Difference = field(default_factory=Difference)
    wider: Difference = field(default_factory=Difference)
    behind: Distances = field(default_factory=Distances)
    behind_masked: Distances = field(default_factory=Distances)
    behind_wider: Distances = field(default_factory=Distances)
    samples: int = 0
    random: bool = False
    reordered: bool = False
    stateful: bool = False
    unequal_draws: bool = False
    next_draws: RandomState | None = None

    def add(self, networks: Networks, batch: Inputs, before: RandomState) -> None:
        """Run all networks on one batch from where the random numbers stand; the next batch goes on from there."""
        forward = Forward(batch, self.next_draws or before, self.stop)
        actual, later = forward.run_twice(networks.slim)
        self.random |= forward.start.moved()
        end = self.next_draws = RandomState.now(forward.start.devices)
        expected, expected_later = forward.run_twice(networks.dense)
        self.unequal_draws |= end.moved()
        if later is not None and expected_later is not None:
            self.stateful = True
            self.to_dense.add_outputs(expected_later.outputs, later.outputs)
            _, masked_later = forward.run_twice(networks.dense, networks.masked)
            self.to_masked.add_outputs((masked_later or expected_later).outputs, later.outputs)
        run_slim, run_dense = partial(forward.run, networks.slim), partial(forward.run, networks.dense)
        expected = self.in_slim_order(expected, actual, run_dense, run_slim)
        self.to_dense.add(expected, actual, batch.labels)
        run_masked = partial(forward.run, networks.dense, networks.masked)
        masked = self.in_slim_order(run_masked(), actual, run_masked, run_slim)
        self.to_masked.add(masked, actual)
        self.samples += batch.batch
        if self.watches:
            again = forward.run(networks.slim, replayed=expected.returned)
            self.replayed.add(expected, again)
            self.behind = joined_behind(self.behind, expected, again)
        if self.watches_behind and networks.masked:
            again = forward.run(networks.slim, replayed=masked.returned)
            self.behind_masked = joined_behind(self.behind_masked, masked, again)
        if networks.in_double:
            self.add_in_double(*networks.in_double, forward)

    def add_in_double(self, masked: nn.Module, slim: nn.Module, forward: Forward) -> None:
        """Run the masked and the slim network in double precision on the same batch."""
        forward = forward.in_double(device_of(slim))
        expected = forward.run(masked)
        self.wider.add(expected, forward.run(slim))
        if self.watches_behind:
            again = forward.run(slim, replayed=expected.returned)
            self.behind_wider = joined_behind(self.behind_wider, expected, again)

    def in_slim_order(self, expected: Ran, actual: Ran, run: Callable[[], Ran], run_slim: Callable[[], Ran]) -> Ran:
        """What a network returns that selects what the slim one does, if that alone tells them apart; else `expected`.

        Networks that are alike, which is usual, are not run again, nor slowed down by a record of what they sort.
        """
        if relative_difference(expected.outputs, actual.outputs) <= self.tolerance:
            return expected
        with RecordedSelections() as recorded:
            run_slim()
        again = run_in_order(run, recorded.indices, self.tolerance)
        if again is None or relative_difference(again.outputs, actual.outputs) > self.tolerance:
            return expected
        self.reordered = True
        return again

    @property
    def watches(self) -> bool:
        """Whether outputs of modules are compared."""
        return self.stop is not None and bool(self.stop.watched or self.stop.behind)

    @property
    def watches_behind(self) -> bool:
        """Whether outputs of modules behind the stop are."""
        return self.stop is not None and bool(self.stop.behind)

    @property
    def in_double(self) -> float:
        """The largest relative difference in double precision."""
        return worse(self.wider.measured.relative, self.behind_wider.relative)


def joined_behind(known: Distances, expected: Ran, actual: Ran) -> Distances:
    """Distances with those of the modules behind a stop; infinite where these return other numbers or shapes."""
    if same_shapes(expected.behind, actual.behind):
        return known.joined(expected.behind, actual.behind)
    unlike = Distance(largest=math.inf, values=sum(tensor.numel() for tensor in expected.behind))
    return Distances((*known.each, unlike))


def has_changed(copy: nn.Module, original: Network) -> bool:
    """Whether a forward of a copy has changed the values of its buffers, or of tensors that its modules hold."""
    before, after = (Network.of(each).tensors for each in (original, copy))
    known = before.buffers | before.plain
    return any(
        name not in known or not torch.equal(tensor, known[name])
        for name, tensor in (after.buffers | after.plain).items()
    )


def masked_scales(dense: nn.Module | Network, plan: SurgeryPlan) -> dict[str, torch.Tensor]:
    """Every γ of which the plan takes channels for zero, with these set to exactly zero."""
    tensors = Network.of(dense).state
    masked = {}
    for zeroed in plan.zeroed:
        gamma = tensors[zeroed.tensor].detach().clone()
        gamma[list(zeroed.channels)] = 0
        masked[zeroed.tensor] = gamma
    return masked


def as_double(model: nn.Module | Network) -> nn.Module:
    """A double-precision copy: where the network is, or on the CPU where its device has no such numbers."""
    try:
        return copy_with(model, lambda _, tensor: doubled_floats(tensor.detach()))
    except TypeError:
        return copy_with(model, lambda _, tensor: doubled_floats(tensor.detach().cpu()))


def doubled_floats(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in double precision, if it holds floating-point numbers at all."""
    return tensor.double() if tensor.is_floating_point() else tensor
