"""NNCF, an optional extra: whether it is installed, which is known without an import, and its import."""

import logging
from types import ModuleType

from slimnet.errors import UsageError, whole_reason
from slimnet.export.telemetry import without_telemetry
from slimnet.version import NOT_INSTALLED, install_command, installed_version

INSTALL = install_command("openvino-int8")


def require_nncf() -> None:
    """Refuse to go on without NNCF, before anything is imported.

    Raises:
        UsageError: it is not installed.
    """
    if installed_version("nncf") == NOT_INSTALLED:
        raise UsageError(f"nncf is not installed, which quantises for OpenVINO; {INSTALL}")


def load_nncf() -> ModuleType:
    """Import NNCF, without its telemetry; the class of loggers, which it replaces for the process, stays what it was.

    Raises:
        UsageError: it is not installed, or does not load.
    """
    require_nncf()
    with without_telemetry():
        loggers = logging.getLoggerClass()
        try:
            import nncf
            import nncf.quantization.advanced_parameters
            import nncf.quantization.range_estimator
        except Exception as error:  # a library that does not fit raises errors of all kinds
            raise UsageError(f"nncf does not load here: {whole_reason(error)}; reinstall it: {INSTALL}") from error
        finally:
            logging.setLoggerClass(loggers)
    return nncf
