"""The paper's data sets in the user's folder, and the small data sets that are made from them."""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from slimnet.data import ImageData, Split
from slimnet.errors import DataError, SlimnetError
from slimnet.reproduction.catalogue import Dataset
from slimnet.storage.files import whole_file

SEED = 0
"""The seed by which the images of a small data set are chosen."""


def source_of(data: Dataset, root: Path) -> str:
    """The path of a data set below `root`, as `slimnet.data.load_data` takes it.

    Raises:
        DataError: it is missing; the message says what to provide.
    """
    for place in data.places:
        path = root / place
        if path.exists():
            return f"{data.name}:{root}" if place.startswith("cifar-") else str(path)
    raise DataError(f"{data.title} is not in {root}; it needs {data.needs}")


def write_small(images: ImageData, path: Path, *, size: int, train: int, test: int) -> None:
    """Write a random part of a data set at a smaller size as an .npz file; the same part every time.

    Images become `size` pixels high and wide by averaging.

    Raises:
        SlimnetError: it cannot be written.
    """
    x_train, y_train = _part(images, "train", train, size)
    x_test, y_test = _part(images, "test", test, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, SlimnetError) as file, file.open("wb") as out:
        classes = np.asarray(images.classes)
        np.savez(out, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, classes=classes)


def _part(images: ImageData, split: Split, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = images.split(split)
    generator = torch.Generator().manual_seed(SEED)
    chosen = torch.randperm(len(pixels), generator=generator, device="cpu")[:count].sort().values
    shrunk = [shrink(pixels[each], size) for each in chosen.split(1000)]
    return torch.cat(shrunk).numpy(), labels[chosen].numpy()


def shrink(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Bytes `(N, H, W, C)` resized to bytes `(N, size, size, C)` by averaging over areas."""
    floats = pixels.permute(0, 3, 1, 2).float()
    small = functional.interpolate(floats, size=(size, size), mode="area")
    return small.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
