"""The handwritten digits that come with scikit-learn: real images that need no download."""

import numpy as np
import torch
from sklearn.datasets import load_digits as load_sklearn_digits

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
    original = load_sklearn_digits()
    images = torch.from_numpy(_doubled(original.images.astype(np.int64)))[..., None]
    labels = torch.from_numpy(original.target.astype(np.int64))
    test = torch.from_numpy(_test_mask(original.target))
    classes = [str(digit) for digit in original.target_names]
    return ImageData.of("digits", (images[~test], labels[~test]), (images[test], labels[test]), classes)


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
