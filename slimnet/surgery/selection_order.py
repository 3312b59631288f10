"""Forwards that sort by score: of scores that are equal but for rounding, two networks may select others.

A network is then compared with the other one in the other one's order: its sorts return what the other one selected, if
they could have selected that themselves. Everything else is computed as usual.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from slimnet.surgery.equivalence import distance, relative_difference

aten = torch.ops.aten
SORTS = frozenset([aten.topk.default, aten.sort.default, aten.sort.stable])
"""The operators that return values in order, and the indices at which they are."""


class RecordedSelections(TorchDispatchMode):
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


class FollowedSelections(TorchDispatchMode):
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


def difference_if_followed(
    run: Callable[[], Sequence[torch.Tensor]],
    actual: Sequence[torch.Tensor],
    indices: Sequence[torch.Tensor],
    tolerance: float,
) -> float:
    """The largest relative difference between outputs and those of a network whose sorts select these indices.

    Infinite where there are none, or the network could not have selected them.
    """
    if not indices:
        return math.inf
    mode = FollowedSelections(indices, tolerance)
    with mode:
        expected = run()
    return relative_difference(expected, actual) if mode.followed else math.inf
