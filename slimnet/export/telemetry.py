"""The package by which OpenVINO and NNCF report their use to their makers is kept out; they work without."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TELEMETRY = "openvino_telemetry"

_IMPORTING = threading.RLock()


@contextmanager
def without_telemetry() -> Iterator[None]:
    """While it lasts, `TELEMETRY` cannot be imported; also around what imports it late, as NNCF's quantiser does.

    One thread at a time.
    """
    with _IMPORTING:
        known = sys.modules.get(TELEMETRY)
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            if known is None:
                del sys.modules[TELEMETRY]
            else:
                sys.modules[TELEMETRY] = known
