"""The version of slimnet, which bundles and exported files state; other packages' versions, and how extras come."""

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


def install_command(extra: str) -> str:
    """The command that installs slimnet with an extra, and where: the name `slimnet` on PyPI is another project's."""
    return f"pip install '.[{extra}]' in a clone of slimnet"
