"""Widths chosen by measurement for a network at a budget: for each way to round them, the channels that meet it."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from slimnet.errors import UsageError
from slimnet.methods.candidates import Channels
from slimnet.methods.remove import ChosenWidths, Selection, plan_and_mask
from slimnet.modules.example_inputs import ExampleInputs, Inputs, check_inputs
from slimnet.planning.width_rounding import Rounding
from slimnet.surgery.plan import SurgeryPlan
from slimnet.width_search import (
    CANDIDATES,
    DENSE,
    Candidate,
    WidthSearch,
    fewest_macs_of_the_fastest,
    quickest,
    runtime_of,
    same_plan,
    timed,
    trial,
)

Choose = Callable[[int], Selection]
"""Selects the channels for a budget when widths are rounded up to this multiple."""


@dataclass(frozen=True)
class Rounded:
    """The fastest way to round the widths: the channels selected for it, and what `remove_selected` rounds to."""

    selection: Selection
    round_to: ChosenWidths


def choose_rounding(model: nn.Module, inputs: ExampleInputs, choose: Choose, auto: WidthSearch) -> Rounded:
    """The fastest network within a budget, of those whose widths are rounded up to several multiples.

    `choose` selects channels for one multiple; a multiple with which the budget cannot be met is left out. All networks
    and the dense one are timed in turn. Of those not measurably slower than the fastest, the one with the fewest MACs
    is taken. The dense network is no candidate, since it is not within the budget.

    Raises:
        UsageError: the budget cannot be met, or the runtime cannot run the networks.
        ExportError: as `slimnet.slim` with measured widths.
    """
    auto = dataclasses.replace(auto, runtime=runtime_of(auto).name)
    tries = Tries(model, check_inputs(model, inputs), choose, auto, [], [])
    samples = quickest((auto.timer or timed)(tries.networks(), tries.inputs, auto))
    found = [each for each, _ in tries.found]
    trials = [trial(each, row, samples[0], auto) for each, row in zip(found, samples[1:], strict=True)]
    dense = dataclasses.replace(trial(found[0], samples[0], samples[0], auto), rounding=DENSE, macs=macs(found[0]))
    number = fewest_macs_of_the_fastest([each.plan.macs_after for each in found], samples[1:])
    chosen, selection = tries.found[number]
    words = f"{chosen.name}, the fastest of {len(found)} within the budget on {auto.runtime}"
    return Rounded(selection, ChosenWidths(chosen.rounding.multiple, words, (dense, *trials)))


def macs(candidate: Candidate) -> int:
    """The MACs of the dense network."""
    return candidate.plan.macs_before


@dataclass(frozen=True)
class Tries:
    """The networks that are timed; `found` are the candidates that differ, `refusals` why others do not exist."""

    model: nn.Module
    inputs: Inputs
    choose: Choose
    auto: WidthSearch
    found: list[tuple[Candidate, Selection]]
    refusals: list[UsageError]

    def networks(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the dense network and every slim one that differs from those before it.

        Raises:
            UsageError: none is within the budget.
        """
        yield DENSE, self.model
        channels = Channels.of(self.model, self.inputs)
        for number, rounding in enumerate(CANDIDATES, 2):
            made = self.made(channels, rounding)
            if self.auto.progress is not None:
                self.auto.progress(number, 1 + len(CANDIDATES), str(rounding))
            if made is None:
                continue
            narrow, plan, selection = made
            if not any(same_plan(plan, other.plan) for other, _ in self.found):
                candidate = Candidate(rounding, plan)
                self.found.append((candidate, selection))
                yield candidate.name, narrow
        if not self.found:
            raise self.refusals[0]

    def made(self, channels: Channels, rounding: Rounding) -> tuple[nn.Module, SurgeryPlan, Selection] | None:
        """The slim network for one rounding; None if the budget cannot be met with it."""
        try:
            selection = self.choose(rounding.multiple)
        except UsageError as error:
            self.refusals.append(error)
            return None
        return (*plan_and_mask(self.model, self.inputs, channels, selection, rounding.multiple), selection)
