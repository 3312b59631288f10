"""Threads that show no warnings and print nothing, beside others that go on doing so."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from slimnet.process_patch import ProcessPatch

_SILENT = threading.local()
"""`depth` is how many `silenced` contexts last in a thread."""


@contextmanager
def silenced() -> Iterator[None]:
    """Show no warning of this thread while the context lasts.

    Not `warnings.catch_warnings`, which restores for all threads the filters that one of them found.
    """
    with _FILTER:
        _SILENT.depth = getattr(_SILENT, "depth", 0) + 1
        try:
            yield
        finally:
            _SILENT.depth -= 1


def is_silent() -> bool:
    """Whether this thread is to show nothing."""
    return getattr(_SILENT, "depth", 0) > 0


class InSilentThreads:
    """In the place of a message's pattern in a warnings filter: matches what a silent thread warns about."""

    def match(self, _: str) -> bool:
        """Whether the filter applies, here."""
        return is_silent()


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
