"""One image file as bytes: any colour mode of the common formats, converted to three channels and one size."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from slimnet.errors import DataError
from slimnet.storage.files import open_file

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""The exceptions that Pillow raises for files that are damaged or no images."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""The formats that are decoded, whatever the file's name: Pillow runs other programs for some others, such as EPS."""

DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")
"""Modes with 16 bits per pixel; Pillow converts those of some formats to 32."""


@dataclass(frozen=True)
class Decoded:
    """Pixels `(H, W, 3)` as uint8, and the kind of colour conversion ("" for none)."""

    pixels: np.ndarray
    converted: str


def decode(path: Path, size: int | None) -> Decoded:
    """Read an image: its first frame, rotated according to EXIF, in RGB.

    Grey becomes three equal channels, transparent pixels are blended with white, 16 bits become 8. With `size` the
    shorter side is resized to it (bilinear, antialiased) and the image is centre-cropped to `size × size`.

    Raises:
        DataError: the file is missing, damaged, or no image; a short message without the path.
    """
    try:
        with open_file(path) as file, Image.open(file, formats=FORMATS) as image:
            if size is not None:
                # JPEGs are decoded at 1/8 to 1/2 of their size if that is still larger than `size`.
                image.draft(image.mode, (2 * size, 2 * size))
            image.load()
            upright = ImageOps.exif_transpose(image)
            colour, converted = in_colour(upright)
    except UnidentifiedImageError as error:
        raise DataError("cannot identify it as an image") from error
    except UNREADABLE as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError((words.splitlines() or [type(error).__name__])[0]) from error
    return Decoded(np.asarray(colour if size is None else middle(colour, size)), converted)


def in_colour(image: Image.Image) -> tuple[Image.Image, str]:
    """The image in RGB, and the kind of conversion."""
    mode = image.mode
    if mode == "RGB":
        return image, ""
    if mode in DEEP:
        deep = np.asarray(image).astype(np.uint32)
        return Image.fromarray((deep.clip(0, 65535) // 257).astype(np.uint8)).convert("RGB"), "16-bit"
    if mode == "F":
        raise ValueError("its pixels are floating-point numbers of an unknown range")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB"), "transparent"
    return image.convert("RGB"), {"L": "grey", "1": "grey", "P": "palette"}.get(mode, mode)


def middle(image: Image.Image, size: int) -> Image.Image:
    """The image resized to a shorter side of `size` pixels and centre-cropped."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
