"""Width rounding: restore removable channels until the widths of layers are multiples that are fast on hardware."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from slimnet.errors import UsageError
from slimnet.graph.channel_graph import ChannelGraph
from slimnet.planning.removal import Removal, WidthConstraint

WHOLE = 1 << 30
"""A multiple that no layer reaches: every layer stays as wide as it was."""


@dataclass(frozen=True)
class Rounding:
    """The multiples to which the widths of layers are rounded up: `multiple`, or another one for named layers.

    Widths are output channels of convolutions and linear layers; 1 means no rounding.
    """

    multiple: int = 1
    layers: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for multiple in (self.multiple, *self.layers.values()):
            if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
                raise UsageError(
                    f'widths cannot be rounded to multiples of {multiple!r}; it must be 1 or more, or "auto"'
                )

    def of(self, layer: str) -> int:
        """The multiple for one layer's outputs."""
        return self.layers.get(layer, self.multiple)

    def __str__(self) -> str:
        if self.layers:
            return "by layer"
        if self.multiple >= WHOLE:
            return "whole"
        return "none" if self.multiple == 1 else f"multiples of {self.multiple}"

    def check_against(self, graph: ChannelGraph) -> None:
        """Refuse names that no layer has.

        Raises:
            UsageError: naming the first.
        """
        known = {layer.module for layer in graph.layers}
        for name in self.layers:
            if name not in known:
                raise UsageError(f"round_to names {name!r}, which is no convolution or linear layer of the network")


@dataclass(frozen=True)
class Multiples:
    """The multiple for each row of sets that a layer writes; the largest if several layers write it."""

    rows: Mapping[bytes, np.ndarray]
    by_row: Mapping[bytes, int]

    @classmethod
    def of_layers(cls, removal: Removal, rounding: Rounding) -> "Multiples":
        """The multiples of the layers that are rounded and lose channels."""
        rows: dict[bytes, np.ndarray] = {}
        by_row: dict[bytes, int] = {}
        for layer in removal.graph.layers:
            multiple = rounding.of(layer.module)
            if multiple > 1 and removal.is_removed(layer.outputs).any():
                row = removal.sets[layer.outputs]
                rows[key_of(row)] = row
                by_row[key_of(row)] = max(by_row.get(key_of(row), 1), multiple)
        return cls(rows, by_row)

    def of(self, sets: np.ndarray) -> int:
        """The multiple for some row of sets, in any order."""
        return self.by_row.get(key_of(sets), 1) if self.by_row else 1

    def widths(self, packed: np.ndarray) -> list[WidthConstraint]:
        """The widths to round up, without those of packed groups, which `pack` rounds.

        Widths that are only read, such as those of a concatenation, consist of these.
        """
        found = []
        for key, row in self.rows.items():
            multiple = self.by_row[key]
            if multiple >= row.size or not np.isin(row, packed).any():
                found.append(WidthConstraint(*np.unique(row, return_counts=True), multiple))
        return found


def key_of(sets: np.ndarray) -> bytes:
    """A key that is equal for rows of the same sets."""
    return np.sort(sets, axis=None).tobytes()
