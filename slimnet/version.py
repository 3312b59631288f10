"""The version of slimnet, which bundles and exported files state, and those of other packages."""

from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"

NOT_INSTALLED = "not installed"
"""In place of the version of a package that is not installed."""


def installed_version(package: str) -> str:
    """The version of an installed package, or `NOT_INSTALLED`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED
