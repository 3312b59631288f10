"""The file of a run that describes its images: their size, their normalisation and the names of their classes."""

import dataclasses
import json
import math
import os
from pathlib import Path

from slimnet.data.image_data import ImageData
from slimnet.data.image_spec import ImageSpec
from slimnet.errors import DataError, SlimnetError, UsageError
from slimnet.storage.files import whole_file
from slimnet.storage.folder_names import IMAGES
from slimnet.storage.records import read_record

LIMIT_NUMBERS = 1 << 26
"""The largest number of values of one image in a file, which may be damaged: inputs of this size are made from it."""

ADVICE = "delete it; the run is then read without it, and train --resume writes it again"


def write_images(run: Path, images: ImageSpec) -> None:
    """Write the description of a run's images into its folder.

    Raises:
        SlimnetError: it cannot be written; an earlier one is unchanged.
    """
    with whole_file(run / IMAGES, SlimnetError) as file:
        file.write_text(json.dumps(dataclasses.asdict(images), allow_nan=False) + "\n", encoding="utf-8")


def read_images(run: Path) -> ImageSpec | None:
    """The description of a run's images in its folder; None in a run of an earlier slimnet, which has none.

    Raises:
        UsageError: the file is damaged.
    """
    path = run / IMAGES
    if not os.path.lexists(path):
        return None
    images = read_record(ImageSpec, path, UsageError, advice=ADVICE)
    if images.channels * math.prod(images.image_size) > LIMIT_NUMBERS:
        raise UsageError(f"{path}: an image has more than {LIMIT_NUMBERS:,} numbers; {ADVICE}")
    return images


def refuse_other_images(run: Path, data: ImageData) -> None:
    """Refuse images that are not as the description in a run's folder says; for a run without a checkpoint.

    Raises:
        DataError: they differ, or there is no description.
        UsageError: the file is damaged.
    """
    known = read_images(run)
    if known != data.spec:
        was = "which is not known" if known is None else f"which was {known}"
        raise DataError(f"{data.name} is not what the run in {run} was begun with, {was}; begin a new run")
