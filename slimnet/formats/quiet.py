"""Keep what torch's exporters say while they work out of the caller's terminal, logs and warnings."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

EXPORTERS = ("torch", "onnx", "onnxscript", "onnx_ir")
"""The packages whose log records are held back."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what the exporters print, log and warn about while the context lasts; other loggers go on.

    What matters in it comes as an exception. The library's own forwards are run outside.
    """
    handlers = _handlers()
    for handler in handlers:
        handler.addFilter(_not_from_an_exporter)
    nowhere = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(_not_from_an_exporter)


def _not_from_an_exporter(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] not in EXPORTERS


def _handlers() -> list[logging.Handler]:
    """Every handler that a record of theirs may reach: torch's own, the root's, and the one of last resort.

    Filters sit on handlers because a logger's filter does not see what its children send up.
    """
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    found = [handler for logger in [logging.root, *loggers] for handler in logger.handlers]
    return list(dict.fromkeys([*found, *filter(None, [logging.lastResort])]))
