"""CIFAR-10 and CIFAR-100 in torchvision's folders, or in an .npz file beside them."""

import os
from pathlib import Path
from typing import Any

import torch

from slimnet.compat import torchvision
from slimnet.data.image_data import ImageData
from slimnet.data.npz import load_npz
from slimnet.errors import DataError
from slimnet.storage.files import open_file

CLASSES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
"""torchvision's class for each source."""

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
"""torchvision's folder for each source, below its root."""

COUNTS = {"cifar10": 10, "cifar100": 100}
"""The number of classes of each source."""

SHAPE = (32, 32, 3)
"""Height, width and channels of an image."""

LARGEST = 1 << 28
"""The largest size of a file in bytes; the largest of CIFAR has 155 million."""

ROOT = "data"
"""The default root folder, as in torchvision's examples."""


def load_cifar(name: str, root: str | Path | None = None, *, download: bool = False) -> ImageData:
    """Read 50,000 training and 10,000 test images, 32×32 in colour; with `download` they are downloaded if missing.

    The files are pickles, which could run code; torchvision opens them only if their MD5 sums are the published
    ones. `root` (default: `data`) contains `cifar-10-batches-py` or `cifar-100-python`; where it does not, its
    `cifar10.npz` or `cifar100.npz` is read.

    Raises:
        DataError: the files are missing or damaged, cannot be downloaded, or hold other images.
    """
    root = Path(ROOT if root is None else root)
    packed = root / f"{name}.npz"
    if os.path.lexists(packed) and not os.path.lexists(root / FOLDERS[name]):
        return _packed(name, packed)
    (x_train, y_train, classes), (x_test, y_test, _) = (_split(name, root, train, download) for train in (True, False))
    return ImageData.of(name, (x_train, y_train), (x_test, y_test), classes)


def _packed(name: str, path: Path) -> ImageData:
    """The images of an .npz file that has the name of a source.

    Raises:
        DataError: it cannot be read, or holds images of another size, or other classes.
    """
    found = load_npz(path)
    shape = tuple(found.x_train.shape[1:])
    if shape != SHAPE or len(found.classes) != COUNTS[name]:
        raise DataError(
            f"{path} has images of {' × '.join(map(str, shape))} in {len(found.classes)} classes, and {name} has "
            f"{' × '.join(map(str, SHAPE))} in {COUNTS[name]}; to use these images, give the path of the file"
        )
    return found


def _split(name: str, root: Path, train: bool, download: bool) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    kind: Any = getattr(torchvision().datasets, CLASSES[name])
    try:
        _refuse_irregular(kind, root)
        found = kind(root, train=train, download=download)
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        what = "could not be fetched" if download else "is not there, or its files are damaged"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{name} {what} in {root / kind.base_folder} ({reason}); "
            f"have it fetched with --download, put {name}.npz into {root}, or say where it is with {name}:FOLDER"
        ) from error
    return torch.from_numpy(found.data), torch.tensor(found.targets, device="cpu"), list(found.classes)


def _refuse_irregular(kind: Any, root: Path) -> None:
    """Refuse files that are not regular or too large: torchvision reads each completely, to check its MD5 sum.

    Raises:
        OSError: naming the file.
    """
    for name in (*(name for name, _ in (*kind.train_list, *kind.test_list)), kind.meta["filename"]):
        if os.path.lexists(path := root / kind.base_folder / name):
            open_file(path, LARGEST).close()
