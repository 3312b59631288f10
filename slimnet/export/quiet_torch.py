"""Suppress the output, log records and warnings of torch's exporters."""

import contextlib
import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch.fx.config
import torch.fx.traceback

from slimnet.torch_state.process_patch import ProcessPatch, attribute_patch
from slimnet.torch_state.silence import is_silent, silenced

EXPORTERS = ("torch", "onnx", "onnxscript", "onnx_ir")
"""The packages whose log records are suppressed."""

EXPORTING = threading.RLock()
"""Held while an exporter runs: torch's exporters patch process-wide state, and restore it afterwards."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what this thread prints, logs and warns about in the context; one thread at a time.

    Errors are raised as exceptions. slimnet runs its own forwards outside of this context, and the output of other
    threads is not affected.
    """
    with EXPORTING, silenced(), _STDOUT, _STDERR, _LOGS, _NOTES, _CUDNN, _STACK_TRACES, noting():
        yield


_THREAD = threading.local()
"""`notes` is true in the thread that exports."""


@contextlib.contextmanager
def noting() -> Iterator[None]:
    """Let this thread's ops annotate torch's graph in the context."""
    before = getattr(_THREAD, "notes", False)
    _THREAD.notes = True
    try:
        yield
    finally:
        _THREAD.notes = before


def _noted_by_the_exporter(annotate: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.fx.traceback.annotate` for the thread that exports, a no-op for others.

    While any thread exports, torch annotates every op that it does not compile, also those of meta tensors in other
    threads, in one shared dictionary, so that two threads remove the same entry (KeyError: 'custom').
    """

    @functools.wraps(annotate)
    def noted(*args: Any, **kwargs: Any) -> Any:
        return annotate(*args, **kwargs) if getattr(_THREAD, "notes", False) else contextlib.nullcontext()

    return noted


_NOTES = attribute_patch(torch.fx.traceback, "annotate", _noted_by_the_exporter)


def _set_only_enabled(set_flags: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.backends.cudnn.set_flags` that changes only whether cuDNN is used.

    The exporter disables cuDNN, and afterwards restores every flag: with that it would undo changes that other threads
    made meanwhile, such as the precision of matrix products.
    """

    @functools.wraps(set_flags)
    def set_enabled(_enabled: bool | None = None, *_others: Any, **_named: Any) -> Any:
        return set_flags(_enabled, _fp32_precision=None)

    return set_enabled


_CUDNN = attribute_patch(torch.backends.cudnn, "set_flags", _set_only_enabled)

_STACK_TRACES: contextlib.AbstractContextManager[None] = (
    attribute_patch(torch.fx.config, "do_not_emit_stack_traces", lambda _: True)
    if hasattr(torch.fx.config, "do_not_emit_stack_traces")
    else contextlib.nullcontext()
)
"""Stack traces of nodes take a fifth of an export's time, and none is written; older torch always takes them."""


class Muted:
    """A stream that discards what silenced threads write."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, unless this thread is silenced."""
        return len(text) if is_silent() else self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts, unless this thread is silenced."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_STDOUT = attribute_patch(sys, "stdout", Muted)
_STDERR = attribute_patch(sys, "stderr", Muted)


def _is_shown(record: logging.LogRecord) -> bool:
    return not (is_silent() and record.name.partition(".")[0] in EXPORTERS)


def _filter_logs() -> list[logging.Handler]:
    handlers = _handlers()
    for handler in handlers:
        handler.addFilter(_is_shown)
    return handlers


def _unfilter_logs(handlers: list[logging.Handler]) -> None:
    for handler in handlers:
        handler.removeFilter(_is_shown)


_LOGS = ProcessPatch(_filter_logs, _unfilter_logs)


def _handlers() -> list[logging.Handler]:
    """Every handler that a record of these packages may reach: their own, the root's, and the last resort.

    Filters are added to handlers because a logger's filter does not apply to records of its children.
    """
    known = list(logging.root.manager.loggerDict.values())
    loggers = [each for each in known if isinstance(each, logging.Logger)]
    found = [handler for logger in [logging.root, *loggers] for handler in logger.handlers]
    return list(dict.fromkeys([*found, *filter(None, [logging.lastResort])]))
