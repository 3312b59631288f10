"""Width rounding: restore removable channels until the widths of layers are multiples, or fast on a runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from slimnet.errors import UsageError, shown
from slimnet.graph.channel_graph import ChannelGraph
from slimnet.graph.reasons import Kind, Reason
from slimnet.planning.removal import Removal, WidthConstraint
from slimnet.planning.set_times import key_of, times_of_rows
from slimnet.planning.width_prices import WidthPrices, allowed_widths
from slimnet.surgery.plan_data import EVERY_WIDTH, FAST

WHOLE = 1 << 30
"""A multiple that no layer reaches: every layer stays as wide as it was."""


@dataclass(frozen=True)
class Rounding:
    """The multiples to which the widths of layers are rounded up: `multiple`, or another one for named layers.

    Widths are output channels of convolutions and linear layers; 1 means no rounding. With `prices` the widths are
    rounded up to those that are fastest by these, whatever the multiples.
    """

    multiple: int = 1
    layers: Mapping[str, int] = field(default_factory=dict)
    prices: WidthPrices | None = None

    def __post_init__(self) -> None:
        for multiple in (self.multiple, *self.layers.values()):
            if isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1:
                raise UsageError(
                    f'widths cannot be rounded to multiples of {shown(multiple)}; it must be 1 or more, or "auto"'
                )

    def of(self, layer: str) -> int:
        """The multiple for one layer's outputs."""
        return self.layers.get(layer, self.multiple)

    def __str__(self) -> str:
        if self.prices is not None:
            return f"{FAST}{self.prices.runtime}"
        if self.layers:
            return "by layer"
        if self.multiple >= WHOLE:
            return EVERY_WIDTH
        return "none" if self.multiple == 1 else f"multiples of {self.multiple}"

    def check_against(self, graph: ChannelGraph) -> None:
        """Refuse names that no layer has.

        Raises:
            UsageError: naming the first.
        """
        known = {layer.module for layer in graph.layers}
        for name in self.layers:
            if name not in known:
                raise UsageError(f"round_to names {name!r}, which is not a convolution or linear layer of the network")


@dataclass(frozen=True)
class Allowed:
    """The allowed widths `(C + 1,)` of a row of C channels, from 0, and the reason for channels that they keep.

    The complete width is allowed in any case.
    """

    widths: np.ndarray
    reason: Reason

    @classmethod
    def multiples(cls, width: int, multiple: int) -> "Allowed":
        """The multiples of a number."""
        whole = multiple >= width
        reason = Reason(Kind.WHOLE) if whole else Reason(Kind.ROUNDED, detail=str(multiple))
        return cls(np.arange(width + 1) % multiple == 0, reason)

    @property
    def is_whole(self) -> bool:
        """Whether nothing narrower is allowed."""
        return not self.widths[1:-1].any()


@dataclass(frozen=True)
class AllowedWidths:
    """The allowed widths for each row of sets that a layer writes and that loses channels."""

    rows: Mapping[bytes, np.ndarray]
    by_row: Mapping[bytes, Allowed]

    @classmethod
    def of_layers(cls, removal: Removal, rounding: Rounding) -> "AllowedWidths":
        """The allowed widths of the layers that are rounded and lose channels.

        If several layers write a row, the largest of their multiples counts.
        """
        rows: dict[bytes, np.ndarray] = {}
        multiples: dict[bytes, int] = {}
        for layer in removal.graph.layers:
            multiple = rounding.of(layer.module)
            if (multiple > 1 or rounding.prices) and removal.is_removed(layer.outputs).any():
                row = removal.sets[layer.outputs]
                rows[key_of(row)] = row
                multiples[key_of(row)] = max(multiples.get(key_of(row), 1), multiple)
        if rounding.prices is not None:
            return cls(rows, fast_widths(removal, rows, rounding.prices))
        return cls(rows, {key: Allowed.multiples(row.size, multiples[key]) for key, row in rows.items()})

    def allows(self, sets: np.ndarray, width: int) -> bool:
        """Whether a row of sets, in any order, may have a width."""
        allowed = self.by_row.get(key_of(sets)) if self.by_row else None
        return allowed is None or bool(allowed.widths[width])

    def constraints(self, packed: np.ndarray) -> list[WidthConstraint]:
        """The widths to round up, without those of packed groups, which `pack` rounds.

        Widths that are only read, such as those of a concatenation, consist of these.
        """
        found = []
        for key, row in self.rows.items():
            allowed = self.by_row[key]
            if allowed.is_whole or not np.isin(row, packed).any():
                sets, counts = np.unique(row, return_counts=True)
                found.append(WidthConstraint(sets, counts, allowed.widths, allowed.reason))
        return found


def fast_widths(removal: Removal, rows: Mapping[bytes, np.ndarray], prices: WidthPrices) -> dict[bytes, Allowed]:
    """The widths of rows that are fastest by the prices of kernels."""
    reason = Reason(Kind.NO_FASTER, detail=prices.runtime)
    times = times_of_rows(removal.graph, removal.sets, tuple(rows.values()), prices)
    return {key: Allowed(allowed_widths(*each), reason) for key, each in zip(rows, times, strict=True)}
