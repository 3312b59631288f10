"""The part of the result of a cell that tables show."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimnet.accuracy import Accuracy
from slimnet.errors import UsageError
from slimnet.storage.field_types import Amount, Share
from slimnet.storage.records import build


@dataclass(frozen=True)
class Ending:
    """The end of a run: its test accuracy, the share of dead filters, 0..1, and the seconds of training."""

    accuracy: Accuracy
    dead_filters: Share
    seconds: Amount

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> "Ending":
        """Read the result of a cell from the table of a sweep.

        Raises:
            UsageError: it is not the result of a cell.
        """
        return build(
            cls, result, "the result of a cell", UsageError, advice="sweep in a new folder", others_ignored=True
        )
