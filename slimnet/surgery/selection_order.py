"""Forwards that sort by score: of scores that are equal but for rounding, two networks may select others.

A network is then compared with the other one in the other one's order: its sorts return what the other one selected, if
they could have selected that themselves. Everything else is computed as usual.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from slimnet.surgery.equivalence import distance, relative_difference
from slimnet.torch_state.eager_mode import EagerMode

T = TypeVar("T")

aten = torch.ops.aten
SORTS = frozenset([aten.topk.default, aten.sort.default, aten.sort.stable])
"""The operators that return values in order, and the indices at which they are."""


class RecordedSelections(EagerMode):
    """Within this context the indices that every sort returns are added to `indices`."""

    def __init__(self) -> None:
        super().__init__()
        self.indices: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and record what a sort returns."""
        found = func(*args, **(kwargs or {}))
        if func in SORTS:
            self.indices.append(found[1].detach().clone())
        return found


class FollowedSelections(EagerMode):
    """Within this context sorts return the elements at these indices, those of each sort in turn.

    That is allowed if no element is selected twice, and the selected values are those that the sort would return,
    within the tolerance relative to the largest of them; otherwise `followed` is False, and sorts are as usual.
    """

    def __init__(self, indices: Sequence[torch.Tensor], tolerance: float) -> None:
        super().__init__()
        self._left = list(indices)
        self._tolerance = tolerance
        self._possible = True

    @property
    def followed(self) -> bool:
        """Whether every sort followed, and there were as many as indices."""
        return self._possible and not self._left

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator; a sort gives the elements at the next indices."""
        found = func(*args, **(kwargs or {}))
        if func not in SORTS:
            return found
        given = arguments_of(func, args, kwargs or {})
        indices = self._left.pop(0) if self._left else None
        selected = self._selected(given["self"], given.get("dim", -1), found[0], indices)
        if selected is None:
            self._possible = False
            return found
        return selected, indices

    def _selected(
        self, scores: torch.Tensor, axis: int, values: torch.Tensor, indices: torch.Tensor | None
    ) -> torch.Tensor | None:
        """The scores at the indices; None if the sort could not have selected them."""
        if indices is None or indices.shape != values.shape:
            return None
        if indices.numel() == 0:
            return values
        inside = indices.min() >= 0 and indices.max() < scores.shape[axis]
        once = not (indices.sort(axis).values.diff(dim=axis) == 0).any()
        if not inside or not once:
            return None
        selected = scores.gather(axis, indices.to(scores.device))
        return selected if distance(values, selected).relative <= self._tolerance else None


def arguments_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an operator by their names."""
    names = [argument.name for argument in func._schema.arguments]
    return dict(zip(names, args, strict=False)) | dict(kwargs)


def run_in_order(run: Callable[[], T], indices: Sequence[torch.Tensor], tolerance: float) -> T | None:
    """What a network computes whose sorts select these indices; None where there are none, or it could not have."""
    if not indices:
        return None
    with FollowedSelections(indices, tolerance) as order:
        found = run()
    return found if order.followed else None


def difference_in_order(
    expected: Sequence[torch.Tensor],
    actual: Sequence[torch.Tensor],
    tolerance: float,
    run: Callable[[], Sequence[torch.Tensor]],
    selections: Callable[[], Sequence[torch.Tensor]],
) -> tuple[float, bool]:
    """The largest relative difference between the outputs of a network and of another form of it, which sorts itself.

    Where it exceeds the tolerance, and the network comes within it in the order of the other form's `selections`, it is
    that difference, and the second result is true. `run` runs the network again.
    """
    difference = relative_difference(expected, actual)
    if difference <= tolerance:
        return difference, False
    again = run_in_order(run, selections(), tolerance)
    followed = math.inf if again is None else relative_difference(again, actual)
    return (followed, True) if followed <= tolerance else (difference, False)
