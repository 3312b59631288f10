"""ImageData: a labelled image set stored as bytes and normalised batch by batch."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch

from slimnet.data.image_spec import ImageSpec, factors_of, printable_names, scaled
from slimnet.errors import DataError, UsageError

Split = Literal["train", "test"]

_STATISTICS_CHUNK = 4096
"""The number of images processed at a time, so that the statistics of a large set need no second copy of it."""

_DIGESTED = 64
"""The number of images in the digest of a data set, which is computed at every checkpoint of a run."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """Training and test images `(N, H, W, C)` as uint8, with int64 labels `(N,)` that index `classes`.

    Bytes take a quarter of the memory of floats, and NHWC order makes a channels_last batch a free permutation. `mean`
    and `std` are per channel, of the training images scaled to 0..1. `mapped` images are on disk and read when they are
    used, so that they may exceed memory. `left_out` is the number of images that could not be read.

    Raises:
        DataError: an array has the wrong dtype, shape or length, or a label has no class.
    """

    name: str
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mapped: bool = False
    left_out: int = 0

    def __post_init__(self) -> None:
        for split in get_args(Split):
            self._check_split(split)
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            raise DataError(
                f"{self.name}: training images are {_size(self.x_train)} and test images "
                f"{_size(self.x_test)}; give both the same height, width and channels"
            )
        if not len(self.mean) == len(self.std) == self.channels:
            raise DataError(f"{self.name}: mean and std need one number for each of {self.channels} channels")

    def _check_split(self, split: Split) -> None:
        images, labels = self.split(split)
        x, y = f"{self.name}: x_{split}", f"{self.name}: y_{split}"
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise DataError(f"{x} is {_kind(images)}; it must be uint8 of shape (N, H, W, C)")
        if labels.dtype != torch.int64 or labels.ndim != 1:
            raise DataError(f"{y} is {_kind(labels)}; it must be int64 of shape (N,)")
        if len(images) != len(labels):
            raise DataError(f"{x} has {len(images)} images but y_{split} {len(labels)} labels; they must pair up")
        if images.numel() == 0:
            raise DataError(f"{x} of shape {tuple(images.shape)} is empty; it needs at least one image")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(self.classes):
            wrong = low if low < 0 else high
            raise DataError(f"{y} holds label {wrong}; the {len(self.classes)} classes have labels from 0 up")

    @classmethod
    def of(
        cls,
        name: str,
        train: tuple[torch.Tensor, torch.Tensor],
        test: tuple[torch.Tensor, torch.Tensor],
        classes: Sequence[str],
    ) -> "ImageData":
        """Build from (images, labels) pairs; mean and standard deviation are those of the training images.

        Raises:
            DataError: as for the class.
        """
        zeros = (0.0,) * train[0].shape[-1]
        unmeasured = cls(name, *train, *test, tuple(classes), zeros, zeros)
        mean, std = _statistics(train[0])
        return replace(unmeasured, mean=mean, std=std)

    @property
    def channels(self) -> int:
        """Channels of an image: 1 for grey, 3 for colour."""
        return self.x_train.shape[-1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.x_train.shape[1], self.x_train.shape[2]

    def split(self, split: Split) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(N, H, W, C)` uint8 and labels `(N,)` of "train" or "test".

        Raises:
            UsageError: there is no such split.
        """
        if split == "train":
            return self.x_train, self.y_train
        if split == "test":
            return self.x_test, self.y_test
        raise UsageError(f"there is no split {split!r}: use train or test")

    @property
    def spec(self) -> ImageSpec:
        """How these images become inputs, and the names of their classes, as a network keeps them."""
        return ImageSpec(self.mean, self.std, self.image_size, printable_names(self.classes))

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Bytes `(N, H, W, C)` to floats `(N, C, H, W)` of mean 0 and variance 1 over the training set.

        The result is float32, on the device of `images`, in the channels_last memory format.

        Raises:
            DataError: the images are not uint8, or have another number of channels.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != self.channels:
            raise DataError(f"{self.name}: cannot normalise {_kind(images)}; pass uint8 (N, H, W, {self.channels})")
        return scaled(images, *factors_of(self.mean, self.std))

    def batches(
        self, split: Split = "test", batch_size: int = 256, device: torch.device | str | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Normalised images `(N, C, H, W)` and labels `(N,)` in stored order; the last batch may be short.

        They are moved to `device` (default: that of the data) and normalised there.

        Raises:
            UsageError: there is no such split, or the batch size is below 1.
        """
        images, labels = self.split(split)
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
        device = images.device if device is None else device
        return (
            (self.normalise(x.to(device)), y.to(device))
            for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True)
        )

    def sample(self, count: int, batch_size: int = 128) -> Iterator[torch.Tensor]:
        """Normalised training images `(N, C, H, W)`: at most `count`, evenly spaced in stored order.

        The sizes of the batches differ by one at most, so that none has a single image.
        """
        rows = _evenly_spaced(len(self.x_train), count)
        return (self.normalise(self.x_train[some]) for some in rows.chunk(math.ceil(len(rows) / batch_size)))

    def digest(self) -> str:
        """SHA-256 of all training labels and of a few training images, evenly spaced, in stored order."""
        rows = _evenly_spaced(len(self.x_train), _DIGESTED)
        digest = hashlib.sha256()
        for part in (self.y_train, self.x_train[rows]):
            digest.update(part.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def with_fewer_tests(self, count: int) -> "ImageData":
        """The same data with at most `count` of its test images, evenly spaced in stored order."""
        if count >= len(self.x_test):
            return self
        rows = _evenly_spaced(len(self.x_test), count)
        return replace(self, x_test=self.x_test[rows], y_test=self.y_test[rows])

    def to(self, device: torch.device | str) -> "ImageData":
        """The same data with its images and labels on `device`; mapped ones are read, unless it is the CPU."""
        moved = {name: getattr(self, name).to(device) for name in ("x_train", "y_train", "x_test", "y_test")}
        return replace(self, **moved, mapped=self.mapped and torch.device(device).type == "cpu")


@dataclass(frozen=True, eq=False)
class Batches:
    """The batches of a split, created in each iteration, so that they are not in memory all at once.

    `progress` is called with the number of images so far and the total.
    """

    data: ImageData
    split: Split = "test"
    batch_size: int = 256
    device: torch.device | str | None = None
    progress: Callable[[int, int], None] | None = None

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        done, total = 0, len(self.data.split(self.split)[1])
        for images, labels in self.data.batches(self.split, self.batch_size, self.device):
            yield images, labels
            done += len(labels)
            if self.progress:
                self.progress(done, total)


def _evenly_spaced(have: int, count: int) -> torch.Tensor:
    """At most `count` of the indices below `have`, from the first to the last."""
    return torch.linspace(0, have - 1, min(count, have)).long()


def _statistics(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Exact mean and standard deviation of each channel of bytes `(N, H, W, C)`, scaled to 0..1.

    They are computed from histograms of the 256 values. The deviation of a constant channel is set to 1.
    """
    channels = images.shape[-1]
    counts = torch.zeros(channels, 256, dtype=torch.int64, device="cpu")
    for chunk in images.split(_STATISTICS_CHUNK):
        counts += torch.stack([chunk[..., c].flatten().bincount(minlength=256) for c in range(channels)]).cpu()
    shares = counts.double() / counts.sum(dim=1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64, device="cpu") / 255
    mean = shares @ values
    std = (shares * (values - mean[:, None]) ** 2).sum(dim=1).sqrt()
    return tuple(mean.tolist()), tuple(std.where(std > 0, 1.0).tolist())


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _size(images: torch.Tensor) -> str:
    return " x ".join(map(str, images.shape[1:]))
