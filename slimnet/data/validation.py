"""hold_out: a part of the training images set aside, to choose by; divided: beside the rest."""

from dataclasses import replace

import torch

from slimnet.data.image_data import ImageData
from slimnet.errors import DataError, UsageError

SEED = 0
"""Decides which images are held out: the same ones every time."""


def divided(images: ImageData, share: float) -> tuple[ImageData, ImageData]:
    """The data set without a random `share`, 0..1, of its training images, and the one whose test images these are.

    For a share of 0 both are the data set itself.

    Raises:
        UsageError, DataError: as `hold_out`.
    """
    if not share:
        return images, images
    held = hold_out(images, share)
    return replace(held, x_test=images.x_test, y_test=images.y_test), held


def hold_out(images: ImageData, share: float) -> ImageData:
    """The data set whose test images are a random `share`, 0..1, of the training images, which lose them.

    The normalisation stays that of all training images.

    Raises:
        UsageError: the share leaves no image on one side.
        DataError: the images are mapped from the disk, where a part of them would have to be copied.
    """
    total = len(images.x_train)
    count = round(share * total)
    if not 0 < count < total:
        raise UsageError(f"{share:g} of {total:,} training images cannot be held out; choose a share such as 0.1")
    if images.mapped:
        raise DataError(
            f"{images.name} is read from the disk as it is used, so no part of it is held out; put the images to "
            "validate on where its test images are"
        )
    order = torch.randperm(total, generator=torch.Generator().manual_seed(SEED), device="cpu")
    held, left = order[:count].sort().values, order[count:].sort().values
    return replace(
        images,
        x_train=images.x_train[left],
        y_train=images.y_train[left],
        x_test=images.x_train[held],
        y_test=images.y_train[held],
    )
