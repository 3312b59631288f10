"""The protocol of a contender that records the time of each of its layers, on any runtime."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

Key = tuple[str, str]
"""The name and the kind of a row."""
Forward = Mapping[Key, float]
"""Milliseconds of one forward, by row."""


class LayerTimer(ABC):
    """A contender that records the time of each of its layers."""

    macs: Mapping[Key, int | None]
    """Multiply-accumulates of every convolution and linear layer, for one example, in order."""

    @abstractmethod
    def run(self) -> object:
        """One forward."""

    @abstractmethod
    def forwards(self) -> list[Forward]:
        """The recorded times, a mapping for each forward; recording ends here."""
