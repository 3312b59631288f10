"""The conditions under which results in a folder were begun, and what differs in those of a later command."""

import json
import re
from collections.abc import Mapping
from typing import Any

DIGEST = re.compile(r"[0-9a-f]{16,}")
"""A digest of weights, a file or images, which says nothing to people."""

OTHER = {"weights": "other weights", "data": "other images"}
"""What is said of digests that differ, where it is not "another" and the name."""


def change_in_words(was: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> str | None:
    """The first condition of `now` that was another before, as in "seed 0, not 3"; None if all are the same.

    A recipe (an object, or the JSON text of one) is compared field by field: "finetuning.lr 0.1, not 0.01".
    """
    for name, value in now.items():
        if was.get(name) != value:
            return _in_words(f"{within}{name}", was.get(name), value)
    return None


def _in_words(name: str, was: Any, now: Any) -> str:
    before, after = _fields(was), _fields(now)
    if before is not None and after is not None:
        # Fields with a default may be missing on one side.
        missing = dict.fromkeys(before.keys() - after.keys())
        return change_in_words(before, after | missing, f"{name}.") or f"another {name}"
    if before is not None or after is not None:
        return f"{name}, not without" if before is not None else f"no {name}, not with it"
    if isinstance(was, str) and isinstance(now, str) and DIGEST.fullmatch(was) and DIGEST.fullmatch(now):
        return OTHER.get(name, f"another {name}")
    return f"{name} {was!r}, not {now!r}"


def _fields(value: Any) -> dict[str, Any] | None:
    """The fields of an object or of the JSON text of one; None for anything else."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return dict(value) if isinstance(value, Mapping) else None
