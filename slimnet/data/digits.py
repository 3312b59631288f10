"""The handwritten digits that come with scikit-learn: real images that need no download."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from slimnet.data.image_data import ImageData

_LEVELS = 16
"""The largest value of a pixel in the original images, 0..16."""

_SPLIT_SEED = 0


def load_digits() -> ImageData:
    """1,797 grey images of ten digits, 16×16, with a fixed split into 1,438 training and 359 test images.

    The originals are 8×8. They are doubled by linear interpolation with half-pixel centres and
    repeated edges, in integer arithmetic, so that every machine trains on the same bytes. The split
    is stratified: a fifth of every digit, drawn with a fixed seed, is for testing; both parts keep
    the original order.
    """
    originals, digits = _originals()
    images = torch.from_numpy(_doubled(originals))[..., None]
    labels = torch.from_numpy(digits)
    test = torch.from_numpy(_test_mask(digits))
    classes = [str(digit) for digit in range(10)]
    return ImageData.of("digits", (images[~test], labels[~test]), (images[test], labels[test]), classes)


def _originals() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's images `(N, 8, 8)` of 0..16 and their labels `(N,)`, both int64.

    They are read from the file in its package: importing it takes as long as importing torch, since it imports SciPy's
    statistics, and pandas where that is installed. Where the file is not, scikit-learn is asked.
    """
    if file := _file():
        rows = np.loadtxt(file, dtype=np.int64, delimiter=",")
        return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
    from sklearn.datasets import load_digits as load_originals

    originals = load_originals()
    return originals.images.astype(np.int64), originals.target.astype(np.int64)


def _file() -> Path | None:
    """Where an installed scikit-learn keeps the digits."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        return None
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    return file if file.is_file() else None


def _doubled(images: np.ndarray) -> np.ndarray:
    """Images `(N, H, W)` of 0..16 as uint8 `(N, 2H, 2W)`: both axes doubled, the range scaled to 0..255."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    sixteenths = _doubled_axis(_doubled_axis(padded, 1), 2)
    full = 16 * _LEVELS
    return ((sixteenths * 255 + full // 2) // full).astype(np.uint8)


def _doubled_axis(padded: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation along an axis, times four: each pixel becomes two, 3/4 of it plus 1/4 of a neighbour."""
    size = padded.shape[axis] - 2
    before, here, after = (padded.take(range(start, start + size), axis) for start in range(3))
    halves = np.stack([3 * here + before, 3 * here + after], axis=axis + 1)
    return halves.reshape([2 * size if i == axis else length for i, length in enumerate(here.shape)])


def _test_mask(labels: np.ndarray) -> np.ndarray:
    """True for a fifth of every class; RandomState's stream is frozen, so the split never changes."""
    random = np.random.RandomState(_SPLIT_SEED)
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        mask[members[: round(len(members) / 5)]] = True
    return mask
