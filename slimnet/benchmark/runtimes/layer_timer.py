"""What a contender is that notes how long each of its layers takes, whatever runs it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

Key = tuple[str, str]
"""The name and the kind of a row."""
Forward = Mapping[Key, float]
"""Milliseconds of one forward, by row."""


class LayerTimer(ABC):
    """A contender that notes how long each of its layers takes."""

    macs: Mapping[Key, int | None]
    """Multiply-accumulates of every convolution and linear layer, for one example, in order."""

    @abstractmethod
    def run(self) -> object:
        """One forward."""

    @abstractmethod
    def forwards(self) -> list[Forward]:
        """What was noted, a mapping for each forward; nothing is noted afterwards."""
