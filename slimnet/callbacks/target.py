"""What the callbacks of all trainers ask of their arguments."""

from typing import Any

from torch import nn

from slimnet.errors import UsageError


def checked_interval(every: int) -> int:
    """The number of steps between two looks.

    Raises:
        UsageError: it is below 1.
    """
    if every < 1:
        raise UsageError(f"every {every} steps cannot be; it must be at least 1")
    return every


def part_of(module: nn.Module, path: str) -> Any:
    """The module at a path in the module that a trainer trains.

    Raises:
        UsageError: there is none.
    """
    try:
        return module.get_submodule(path)
    except AttributeError as error:
        raise UsageError(f"{type(module).__name__} has no module {path!r}; name the path of the network") from error
