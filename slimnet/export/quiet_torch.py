"""Keep what torch's exporters say while they work out of the caller's terminal, logs and warnings."""

import contextlib
import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch.fx.traceback

from slimnet.torch_state.process_patch import ProcessPatch, attribute_patch
from slimnet.torch_state.silence import is_silent, silenced

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
    with EXPORTING, silenced(), _STDOUT, _STDERR, _LOGS, _NOTES, _CUDNN, noting():
        yield


_THREAD = threading.local()
"""`notes` is true in the thread that exports."""


@contextlib.contextmanager
def noting() -> Iterator[None]:
    """Let this thread's ops leave notes in torch's graph while the context lasts."""
    before = getattr(_THREAD, "notes", False)
    _THREAD.notes = True
    try:
        yield
    finally:
        _THREAD.notes = before


def _noted_by_the_exporter(annotate: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.fx.traceback.annotate` for the thread that exports, nothing for others.

    While any thread exports, torch notes every op that it does not compile, also those of meta tensors in other
    threads, in one dictionary for all of them: one thread then removes what another is about to (KeyError: 'custom').
    """

    @functools.wraps(annotate)
    def noted(*args: Any, **kwargs: Any) -> Any:
        return annotate(*args, **kwargs) if getattr(_THREAD, "notes", False) else contextlib.nullcontext()

    return noted


_NOTES = attribute_patch(torch.fx.traceback, "annotate", _noted_by_the_exporter)


def _set_only_enabled(set_flags: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.backends.cudnn.set_flags` that leaves alone all but whether cuDNN is used.

    The exporter switches cuDNN off, and afterwards writes back every flag as it stood when it began: with that it
    would undo what other threads set meanwhile, the precision of products above all.
    """

    @functools.wraps(set_flags)
    def set_enabled(_enabled: bool | None = None, *_others: Any, **_named: Any) -> Any:
        return set_flags(_enabled, _fp32_precision=None)

    return set_enabled


_CUDNN = attribute_patch(torch.backends.cudnn, "set_flags", _set_only_enabled)


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
