"""The plans by which a network was cut since it was built; they stay with the network, and with its copies."""

from dataclasses import dataclass
from functools import reduce
from typing import Any

from torch import nn

from slimnet.surgery.plan import SurgeryPlan

ATTRIBUTE = "slimnet_cuts"


@dataclass(frozen=True)
class CutHistory:
    """The plans that a network was cut by, each made for the network that the one before leaves.

    Copies of a network share it, because plans never change. A pickled network has them as JSON in a list, so that it
    can be read where slimnet is not installed.
    """

    plans: tuple[SurgeryPlan, ...] = ()

    def __copy__(self) -> "CutHistory":
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> "CutHistory":
        return self

    def __reduce__(self) -> tuple[type[list], tuple[list[str]]]:
        return list, ([plan.to_json() for plan in self.plans],)


def cuts_of(model: nn.Module) -> tuple[SurgeryPlan, ...]:
    """The plans by which slimnet has cut a network since it was built, the first one first.

    Raises:
        PlanError: those of a network that was pickled are not plans of this version.
    """
    found = vars(model).get(ATTRIBUTE)
    if isinstance(found, list):
        found = vars(model)[ATTRIBUTE] = CutHistory(tuple(map(SurgeryPlan.from_json, found)))
    return found.plans if isinstance(found, CutHistory) else ()


def record_cut(model: nn.Module, plan: SurgeryPlan) -> None:
    """Note on a network that it was cut by a plan, after what is noted there already."""
    vars(model)[ATTRIBUTE] = CutHistory((*cuts_of(model), plan))


def revise_cut(model: nn.Module, plan: SurgeryPlan, revised: SurgeryPlan) -> SurgeryPlan:
    """Note the last cut with what was found out since, such as how its widths were chosen; the revised plan."""
    plans = cuts_of(model)
    if plans and plans[-1] == plan:
        vars(model)[ATTRIBUTE] = CutHistory((*plans[:-1], revised))
    return revised


def plan_from_the_first(model: nn.Module, last: SurgeryPlan) -> SurgeryPlan:
    """The plan from a network as it was built to what all cuts left of it; `last` where no others are known.

    Raises:
        PlanError: the plans do not compose.
    """
    plans = cuts_of(model)
    if not plans or plans[-1] != last:
        return last
    return reduce(SurgeryPlan.then, plans)
