"""What the network constructors accept, checked in one place so that they all say it in the same words."""

from slimnet.errors import ArchitectureError


def require_positive(**sizes: int) -> None:
    """Check sizes given by name.

    Raises:
        ArchitectureError: one of them is not a whole number of at least 1.
    """
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ArchitectureError(f"{name} must be a whole number of at least 1, got {size!r}")
