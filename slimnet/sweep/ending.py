"""What the process of a cell says at its end, as far as tables read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimnet.accuracy import Accuracy
from slimnet.errors import UsageError
from slimnet.storage.field_types import Amount, Share
from slimnet.storage.records import build


@dataclass(frozen=True)
class Ending:
    """How a run ended: its test accuracy, the share of dead filters, 0..1, and the seconds of training."""

    accuracy: Accuracy
    dead_filters: Share
    seconds: Amount

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> "Ending":
        """Read the result of a cell, which comes from the table in a sweep's folder.

        Raises:
            UsageError: it is something else.
        """
        return build(
            cls, result, "the result of a cell", UsageError, advice="sweep in a new folder", others_ignored=True
        )
