"""Normalisations by other statistics than the data's, for networks that were trained with them."""

import math
from dataclasses import replace

from slimnet.data.image_data import ImageData
from slimnet.errors import DataError

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of values in 0..1."""

NORMALISATIONS: dict[str, Statistics] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "halves": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation of red, green and blue in 0..1: ImageNet's, CIFAR-10's, to −1..1, and unchanged."""

UNIFORM = ("halves", "none")
"""Those with one number for all channels, so that they apply to grey images too."""

FORM = "mean=M,...:std=S,..."
"""How other numbers are written: one for each channel, such as `mean=0.5,0.5,0.5:std=0.25,0.25,0.25`."""


def normalised(data: ImageData, name: str) -> ImageData:
    """The data with another normalisation; "data" leaves it unchanged.

    Raises:
        DataError: there is no such normalisation, or it has another number of channels than the images.
    """
    if name == "data":
        return data
    mean, std = statistics(name, data.channels, data.name)
    return replace(data, mean=mean, std=std)


def statistics(name: str, channels: int, images: str) -> Statistics:
    """Mean and standard deviation for `images` of a number of channels, from one of the names or `mean=...:std=...`.

    Raises:
        DataError: there is no such normalisation, or it has another number of channels.
    """
    mean, std = written(name) if name.startswith("mean=") else named(name)
    if name in UNIFORM:
        mean, std = (mean[0],) * channels, (std[0],) * channels
    if channels != len(mean):
        raise DataError(f"{images} has {channels} channels, and {name} is for {len(mean)}; give another normalisation")
    return mean, std


def named(name: str) -> Statistics:
    """The normalisation of a name.

    Raises:
        DataError: there is none.
    """
    if name not in NORMALISATIONS:
        raise DataError(f"there is no normalisation {name!r:.60}; use data, {', '.join(NORMALISATIONS)} or {FORM}")
    return NORMALISATIONS[name]


def written(text: str) -> Statistics:
    """The numbers in `mean=0.5,0.5,0.5:std=0.25,0.25,0.25`.

    Raises:
        DataError: it has another form, the numbers are not as many, or a deviation is not above 0.
    """
    first, _, second = text.partition(":")
    try:
        mean, std = numbers(first.removeprefix("mean=")), numbers(second.removeprefix("std="))
    except ValueError as error:
        raise DataError(f"{text!r:.80} is not a normalisation; write it as {FORM}") from error
    if not second.startswith("std=") or len(mean) != len(std):
        raise DataError(f"{text!r:.80} is not a normalisation; write it as {FORM}, with as many numbers in both")
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise DataError(f"{text!r:.80} is not a normalisation; its numbers must be finite, and those of std above 0")
    return mean, std


def numbers(text: str) -> tuple[float, ...]:
    """Numbers between commas."""
    return tuple(float(part) for part in text.split(","))
