"""Other normalisations than that of the data itself, for networks that were trained with them."""

from dataclasses import replace

from slimnet.data.image_data import ImageData
from slimnet.errors import DataError

NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "halves": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation of red, green and blue, 0..1: ImageNet's, to −1..1, and as they are."""


def normalised(data: ImageData, name: str) -> ImageData:
    """The data, normalised in another way; "data" leaves it as it is.

    Raises:
        DataError: there is no such normalisation, or it is for colours and the images are grey.
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
