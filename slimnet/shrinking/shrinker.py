"""Shrinker: takes what has died out of a network and its optimiser while they train, and training goes on exactly."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from slimnet.arguments import check_count, check_limit, check_type
from slimnet.errors import PlanError, UsageError
from slimnet.modules.example_inputs import ExampleInputs, check_inputs
from slimnet.planning.dead_channels import check_threshold
from slimnet.planning.make_plan import plan_from
from slimnet.planning.width_rounding import Rounding
from slimnet.shrinking.in_place import check_narrowing, narrow_in_place
from slimnet.shrinking.invariant_set import InvariantSet, Stays, find_invariant_set, scales_of
from slimnet.shrinking.optimizer_state import check_optimiser
from slimnet.shrinking.projection import Projected, Projection, project
from slimnet.shrinking.projection_change import try_meter
from slimnet.shrinking.refusals import check_copies, check_network, check_own
from slimnet.surgery.cut_history import record_cut
from slimnet.surgery.plan import SurgeryPlan
from slimnet.torch_state.precision import autocast_off
from slimnet.torch_state.process import collection_paused
from slimnet.tracing.trace import trace

PATIENCE = 3
"""For how many looks in a row a channel must be dead."""


@dataclass(frozen=True)
class Cut:
    """One cut: what was set to zero, the plan from the network before to that after it, and what stays and why."""

    projection: Projection
    plan: SurgeryPlan
    stays: tuple[Stays, ...]

    def __str__(self) -> str:
        return (
            f"{self.plan.removed_channels} channels removed, MACs {self.plan.macs_before:,} → "
            f"{self.plan.macs_after:,}; {self.projection.count} set to zero, of |γ| up to "
            f"{self.projection.largest_scale:.2g} and |β| up to {self.projection.largest_shift:.2g}"
        )


class Shrinker:
    """Removes dead channels from a network and its optimiser in place during training.

    Call `step()` between optimiser steps, every few hundred of them. A channel whose BatchNorm has |γ| < `threshold`
    and β ≤ `largest_shift` at `patience` consecutive looks is set to zero: γ, β and their optimiser state (a
    small change, which `Cut.projection` measures). Then it is removed, which changes nothing: training continues as it
    would with these zeros. Only channels whose BatchNorm is followed by ReLU or ReLU6 can be removed; `stays` lists the
    other dead ones, with the reasons.

    Parameters, buffers, modules and the optimiser remain the same objects, so that schedulers, gradient scalers and
    parameter groups continue to work. `also` are copies of the network that are narrowed with it, such as `ema.module`.
    A network that was compiled, captured in a CUDA graph or wrapped for several processes must be compiled, captured or
    wrapped again after a cut; if a wrapper must be deleted before the cut, call `look()` and `cut()` instead of
    `step()`.

    `example_inputs` are what forward takes, as for `slimnet.slim`. Pass real images: the change of the outputs is
    measured on them (`Cut.projection.change`). `round_to` rounds widths up, as for `slim`; `finish()` removes the
    channels that rounding has kept.

    Attributes:
        model: the network, in any mode.
        plan: all cuts so far as one plan for the original network; None before the first.
        projected: all channels that have been set to zero so far.
        stays: dead channels that may not be set to zero, as found at the last look.

    Raises:
        UsageError: the optimiser may move a channel away from zero, or does not train this network; the network is
            partly frozen, compiled, wrapped, or shares parameters with a module outside; or the copies differ.
        TraceError, InputError: as `slimnet.slim` does.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: Optimizer,
        example_inputs: ExampleInputs,
        *,
        also: Iterable[nn.Module] = (),
        threshold: float = 1e-3,
        largest_shift: float = 1e-3,
        patience: int = PATIENCE,
        round_to: int | Mapping[str, int] | None = None,
    ) -> None:
        check_count("patience", patience, "the number of looks in a row")
        check_type("optimiser", optimiser, Optimizer, "pass the torch.optim optimiser itself")
        check_type("also", also, Iterable, "pass the copies of the network as a list, such as [ema]")
        self.model, self.optimiser, self.also = model, optimiser, tuple(also)
        self.threshold = check_threshold(threshold)
        self.largest_shift = check_limit("largest_shift", largest_shift, "1e-3")
        self.patience = patience
        if isinstance(round_to, Mapping):
            self.rounding = Rounding(layers=dict(round_to))
        else:
            self.rounding = Rounding(1 if round_to is None else round_to)
        self.plan: SurgeryPlan | None = None
        self.projected = Projected()
        self.stays: tuple[Stays, ...] = ()
        self._inputs = check_inputs(model, example_inputs)
        check_optimiser(optimiser)
        check_network(model, optimiser)
        check_copies(model, self.also)
        check_own(model, self.also)
        graph = trace(model, self._inputs)
        if graph.stop is not None:
            raise UsageError(
                f"the forward depends on data from {graph.stop.place} on, so that the rest cannot be followed: shrink "
                "the part before it (a detector's backbone) while it trains, or slim the whole network afterwards"
            )
        self.rounding.check_against(graph)
        self._scales = {name: model.get_parameter(name) for name in scales_of(graph)}
        self._looks = {name: np.zeros(scale.numel(), dtype=np.int64) for name, scale in self._scales.items()}
        self._fruitless: Mapping[str, tuple[int, ...]] = {}

    def step(self) -> Cut | None:
        """Look at every γ, and cut what has been dead for long enough; None where nothing can go.

        Call it between optimiser steps, every few hundred of them. A look reads γ alone; only where more channels are
        dead than before is the network traced.

        Raises:
            UsageError, PlanError: something outside holds the network at its width; nothing is changed then.
        """
        return self.cut() if self.look() else None

    def look(self) -> bool:
        """The first half of `step`: whether some channels have been dead for long enough that were not before.

        Where a wrapper such as `DistributedDataParallel` has to be deleted before a cut, do so where this is true,
        call `cut()`, and wrap the network again.
        """
        for name, scale in self._scales.items():
            small = (scale.detach().abs() < self.threshold).cpu().numpy()
            self._looks[name] = np.where(small, self._looks[name] + 1, 0)
        return self._waiting() != self._fruitless

    def cut(self) -> Cut | None:
        """The second half of `step`: cut what the last looks found dead; None where nothing can go.

        Raises:
            UsageError, PlanError: as `step`.
        """
        return self._cut(self._waiting(), self.rounding)

    def finish(self) -> Cut | None:
        """Cut what rounding has kept so far, too; for the end of training."""
        dead = self._waiting()
        return self._cut(dead, Rounding()) if dead else None

    def _waiting(self) -> dict[str, tuple[int, ...]]:
        """The channels of each γ that were dead at every one of the last looks."""
        long = {name: np.flatnonzero(looks >= self.patience) for name, looks in self._looks.items()}
        return {name: tuple(channels.tolist()) for name, channels in long.items() if channels.size}

    @torch.inference_mode(False)
    @autocast_off()
    @collection_paused()
    def _cut(self, dead: Mapping[str, tuple[int, ...]], rounding: Rounding) -> Cut | None:
        graph = trace(self.model, self._inputs)
        invariant = find_invariant_set(graph, dead, self.threshold, self.largest_shift)
        self.stays = invariant.stays
        plan = plan_from(invariant.basis, self.model, self._inputs, retrace=True, rounding=rounding)
        if not plan.removed_channels:
            # A β that is too large now may be smaller at the next look.
            self._fruitless = {} if any("β is above" in stays.reason for stays in self.stays) else dead
            return None
        composed = plan if self.plan is None else self.plan.then(plan)
        check_own(self.model, self.also)
        check_narrowing(self.model, plan, self.optimiser, self.also)
        projection = self._project(invariant)
        self._narrow(plan)
        self.plan, self.projected = composed, self.projected + projection
        return Cut(projection, plan, self.stays)

    def _project(self, invariant: InvariantSet) -> Projection:
        """Set channels to zero, and measure on the example inputs what that changes."""
        meter = try_meter(self.model, self._inputs, invariant.basis.graph, invariant.zeros)
        projection = project(self.model, self.optimiser, invariant, self.also)
        return projection if meter is None else dataclasses.replace(projection, change=meter.change())

    def _narrow(self, plan: SurgeryPlan) -> None:
        # What autocast keeps of weights refers to them, and they could not be swapped.
        torch.clear_autocast_cache()
        narrow_in_place(self.model, plan, self.optimiser, self.also)
        for module in (self.model, *self.also):
            record_cut(module, plan)
        for cut in plan.cuts:
            if cut.tensor in self._looks:
                self._looks[cut.tensor] = self._looks[cut.tensor][list(cut.keep)]
        self._fruitless = {}

    def state_dict(self) -> dict[str, Any]:
        """What has been cut so far and how long channels have been dead; `torch.load` reads it with `weights_only`."""
        return {
            "plan": None if self.plan is None else self.plan.to_json(),
            "looks": {name: torch.from_numpy(looks.copy()) for name, looks in self._looks.items()},
            "projected": dataclasses.asdict(self.projected),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut a network of the first width as it was when the state was taken; load its weights and moments after it.

        Raises:
            PlanError: the state is of another network, or this one has been cut before.
        """
        if self.plan is not None:
            raise PlanError("the network has been cut already; load the state into a shrinker of the first width")
        plan = None if state["plan"] is None else SurgeryPlan.from_json(state["plan"])
        if plan is not None:
            check_narrowing(self.model, plan, self.optimiser, self.also)
            self._narrow(plan)
        looks = {name: found.numpy().copy() for name, found in state["looks"].items()}
        if {name: found.shape for name, found in looks.items()} != {n: f.shape for n, f in self._looks.items()}:
            raise PlanError("the state counts looks at other channels; it was taken with another network")
        self.plan, self._looks = plan, looks
        self.projected = Projected(**state["projected"])
