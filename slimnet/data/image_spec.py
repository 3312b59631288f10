"""ImageSpec: how images become the inputs of a network, and which classes its outputs stand for."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from slimnet.errors import DataError
from slimnet.storage.field_types import Positive, Size

LIMIT_NAMES = 1 << 22
"""The largest total length of the class names, in characters."""

MOST_CHANNELS = 1 << 16
"""The largest number of channels of an image."""

ATTRIBUTE = "slimnet_images"

MAX_BYTE = 255
"""The largest value of a pixel as a byte."""


@dataclass(frozen=True)
class ImageSpec:
    """The preprocessing, size and classes of the images that a network was trained on.

    Pixels are bytes, 0..255. They are scaled to `value_range`; then `mean` is subtracted and the result divided by
    `std`, each with one number for each channel. `layout` is the order of the axes of the network's input, and
    `image_size` the height and width in pixels. `classes` are the names of the classes in the order of the outputs;
    empty if not known.

    Raises:
        DataError: the numbers do not fit together, or a class name cannot be printed.
    """

    mean: tuple[float, ...]
    std: tuple[Positive, ...]
    image_size: tuple[Size, Size]
    classes: tuple[str, ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)
    layout: Literal["NCHW"] = "NCHW"

    def __post_init__(self) -> None:
        if not 0 < len(self.mean) == len(self.std) <= MOST_CHANNELS:
            raise DataError(
                f"mean has {len(self.mean)} numbers and std {len(self.std)}; give both one for each channel"
            )
        if not all(math.isfinite(number) for number in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise DataError(f"mean {self.mean} and std {self.std} must be finite, and std above 0")
        if not -math.inf < self.value_range[0] < self.value_range[1] < math.inf:
            raise DataError(f"value_range is {self.value_range}; the first number must be below the second")
        if min(self.image_size) < 1:
            raise DataError(f"image_size is {self.image_size}; height and width must be at least 1")
        if sum(map(len, self.classes)) > LIMIT_NAMES:
            raise DataError(f"the class names have more than {LIMIT_NAMES:,} characters; leave them out")
        for name in self.classes:
            if not name.isprintable():
                raise DataError(f"class name {name!r:.60} cannot be printed; replace it")

    @property
    def channels(self) -> int:
        """Channels of an image: 1 for grey, 3 for colour."""
        return len(self.mean)

    @property
    def factors(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Scale and shift of each channel: an input is `byte * scale + shift`."""
        return factors_of(self.mean, self.std, self.value_range)

    @property
    def normalisation(self) -> str:
        """The same normalisation of values in 0..1, as `--normalise` takes it: `mean=...:std=...`."""
        low, high = self.value_range
        mean = ",".join(repr((each - low) / (high - low)) for each in self.mean)
        return f"mean={mean}:std={','.join(repr(each / (high - low)) for each in self.std)}"

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Bytes `(N, H, W, C)` to inputs `(N, C, H, W)`, float32, in the channels_last memory format.

        Raises:
            DataError: the images are not uint8, or have another number of channels.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != self.channels:
            kind = f"{str(images.dtype).removeprefix('torch.')} of shape {tuple(images.shape)}"
            raise DataError(f"cannot normalise {kind}; pass uint8 (N, H, W, {self.channels})")
        return scaled(images, *self.factors)

    def metadata(self, dtype: str) -> dict[str, str]:
        """What is written into an ONNX file whose input has a type such as "float32"; numbers and lists are JSON."""
        entries: dict[str, Any] = {
            "image_size": self.image_size,
            "image_value_range": self.value_range,
            "image_mean": self.mean,
            "image_std": self.std,
            **({"class_names": self.classes} if self.classes else {}),
        }
        found = {name: json.dumps(value, ensure_ascii=False) for name, value in entries.items()}
        return {"image_layout": self.layout, "image_dtype": dtype} | found

    def __str__(self) -> str:
        height, width = self.image_size
        low, high = self.value_range
        mean, std = (", ".join(f"{number:.4g}" for number in numbers) for numbers in (self.mean, self.std))
        named = f", {len(self.classes)} named classes" if self.classes else ""
        return (
            f"images of {self.channels} × {height} × {width} in {low:g}..{high:g}, minus mean {mean}, divided by "
            f"std {std}{named}"
        )


def factors_of(
    mean: Sequence[float], std: Sequence[float], value_range: tuple[float, float] = (0.0, 1.0)
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and shift of each channel for bytes that are scaled to a range, then normalised by `mean` and `std`."""
    low, high = value_range
    scale = tuple((high - low) / (MAX_BYTE * deviation) for deviation in std)
    return scale, tuple((low - average) / deviation for average, deviation in zip(mean, std, strict=True))


def scaled(images: torch.Tensor, scale: Sequence[float], shift: Sequence[float]) -> torch.Tensor:
    """Bytes `(N, H, W, C)` to `byte * scale + shift`, float32 `(N, C, H, W)`, in the channels_last memory format."""
    factors = torch.tensor(scale, device=images.device), torch.tensor(shift, device=images.device)
    floats = images.permute(0, 3, 1, 2).to(torch.float32)
    return floats.mul_(factors[0][:, None, None]).add_(factors[1][:, None, None])


def printable_names(names: Sequence[str]) -> tuple[str, ...]:
    """Class names with what cannot be printed as its escape; none if they are too long in all."""
    shown = tuple(name if name.isprintable() else name.encode("unicode_escape").decode("ascii") for name in names)
    return shown if sum(map(len, shown)) <= LIMIT_NAMES else ()


def record_images(model: nn.Module, images: ImageSpec | None) -> None:
    """Store on a network what its images are; it stays with the network and its copies."""
    if images is not None:
        vars(model)[ATTRIBUTE] = images


def images_of(model: nn.Module) -> ImageSpec | None:
    """What the images of a network are, if that is recorded on it."""
    found = vars(model).get(ATTRIBUTE)
    return found if isinstance(found, ImageSpec) else None
