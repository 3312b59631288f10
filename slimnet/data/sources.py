"""The source of a data set, as `load_data` takes it: a name, or the place of a file or folder."""

import os
from pathlib import Path

DIGITS = "digits"
"""The name of the embedded data set."""

CIFAR = ("cifar10", "cifar100")
"""The names of the data sets in torchvision's folders; `cifar10:ROOT` is in ROOT."""


def place_of(source: str) -> Path | None:
    """The file or folder that a source names; None for the name of a data set."""
    name, _, root = source.partition(":")
    if name in CIFAR:
        return Path(root) if root else None
    return None if source == DIGITS else Path(source)


def absolute_source(source: str) -> str:
    """The same source from any working directory; as it is if it is a name, or if nothing is there."""
    place = place_of(source)
    if place is None or not os.path.lexists(place):
        return source
    name, _, _ = source.partition(":")
    return f"{name}:{place.absolute()}" if name in CIFAR else str(place.absolute())


def short_source(source: str) -> str:
    """A source for a headline: a name as it is, of a place the name of the file or folder only."""
    name, _, _ = source.partition(":")
    place = place_of(source)
    return name if name in CIFAR else source if place is None else place.name or source
