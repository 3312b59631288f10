"""Threads that show no warnings and print nothing, beside others that go on doing so."""

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from slimnet.torch_state.process_patch import ProcessPatch

_SILENT = threading.local()
"""`about` holds the pattern of each `silenced` context that lasts in a thread, "" for one that silences everything."""


@contextmanager
def silenced(about: str = "") -> Iterator[None]:
    """Show no warning of this thread while the context lasts, or none whose text begins like the pattern `about`.

    Not `warnings.catch_warnings`, which restores for all threads the filters that one of them found.
    """
    with _FILTER:
        before = _patterns()
        _SILENT.about = (*before, about)
        try:
            yield
        finally:
            _SILENT.about = before


def is_silent() -> bool:
    """Whether this thread is to show nothing at all."""
    return "" in _patterns()


def _patterns() -> tuple[str, ...]:
    found: tuple[str, ...] = getattr(_SILENT, "about", ())
    return found


class InSilentThreads:
    """In the place of a message's pattern in a warnings filter: matches what this thread is not to show."""

    def match(self, text: str) -> bool:
        """Whether the filter applies, here."""
        return any(re.match(pattern, text) for pattern in _patterns())


def _add_filter() -> tuple[Any, ...]:
    entry = ("ignore", InSilentThreads(), Warning, None, 0)
    filters: Any = warnings.filters
    filters.insert(0, entry)
    return entry


def _remove_filter(entry: tuple[Any, ...]) -> None:
    filters: Any = warnings.filters
    if entry in filters:
        filters.remove(entry)


_FILTER = ProcessPatch(_add_filter, _remove_filter)
