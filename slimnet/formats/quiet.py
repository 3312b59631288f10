"""Keep what torch's exporters say while they work out of the caller's terminal, logs and warnings."""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from slimnet.process_patch import ProcessPatch, attribute_patch
from slimnet.silence import is_silent, silenced

EXPORTERS = ("torch", "onnx", "onnxscript", "onnx_ir")
"""The packages whose log records are held back."""

EXPORTING = threading.RLock()
"""Held while an exporter works: torch's patch what is the process's, and put back what they found."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what the exporters print, log and warn about while the context lasts; one thread at a time.

    What matters in it comes as an exception. The library's own forwards are run outside, and what other threads say
    goes on.
    """
    with EXPORTING, silenced(), _STDOUT, _STDERR, _LOGS:
        yield


class Muted:
    """A stream to which silent threads write nothing."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, unless this thread is silent."""
        return len(text) if is_silent() else self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_STDOUT = attribute_patch(sys, "stdout", Muted)
_STDERR = attribute_patch(sys, "stderr", Muted)


def _is_heard(record: logging.LogRecord) -> bool:
    return not (is_silent() and record.name.partition(".")[0] in EXPORTERS)


def _filter_logs() -> list[logging.Handler]:
    handlers = _handlers()
    for handler in handlers:
        handler.addFilter(_is_heard)
    return handlers


def _unfilter_logs(handlers: list[logging.Handler]) -> None:
    for handler in handlers:
        handler.removeFilter(_is_heard)


_LOGS = ProcessPatch(_filter_logs, _unfilter_logs)


def _handlers() -> list[logging.Handler]:
    """Every handler that a record of theirs may reach: torch's own, the root's, and the one of last resort.

    Filters sit on handlers because a logger's filter does not see what its children send up.
    """
    known = list(logging.root.manager.loggerDict.values())
    loggers = [each for each in known if isinstance(each, logging.Logger)]
    found = [handler for logger in [logging.root, *loggers] for handler in logger.handlers]
    return list(dict.fromkeys([*found, *filter(None, [logging.lastResort])]))
