"""The protocol of a contender that records the time of each of its layers, on any runtime."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

Key = tuple[str, str]
"""The name and the kind of a row."""
Forward = Mapping[Key, float]
"""Milliseconds of one forward, by row."""


class LayerTimer(ABC):
    """A contender prepared for a runtime that records the time of each layer."""

    macs: Mapping[Key, int | None]
    """Multiply-accumulates of every convolution and linear layer, for one example, in order."""

    @abstractmethod
    def run(self) -> object:
        """One forward."""

    @abstractmethod
    def forwards(self) -> list[Forward]:
        """End the recording; returns the times, a mapping for each forward."""
