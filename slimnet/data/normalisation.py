"""Normalisations by other statistics than the data's, for networks that were trained with them."""

from dataclasses import replace

from slimnet.data.image_data import ImageData
from slimnet.errors import DataError

NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "halves": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation of red, green and blue in 0..1: ImageNet's, to the range −1..1, and unchanged."""


def normalised(data: ImageData, name: str) -> ImageData:
    """The data with another normalisation; "data" leaves it unchanged.

    Raises:
        DataError: there is no such normalisation, or it has another number of channels than the images.
    """
    if name == "data":
        return data
    if name not in NORMALISATIONS:
        raise DataError(f"there is no normalisation {name!r}; use data, {', '.join(NORMALISATIONS)}")
    mean, std = NORMALISATIONS[name]
    if name != "imagenet" and data.channels == 1:
        mean, std = mean[:1], std[:1]
    if data.channels != len(mean):
        raise DataError(
            f"{data.name} has {data.channels} channels, and {name} is for {len(mean)}; use the normalisation 'data'"
        )
    return replace(data, mean=mean, std=std)
