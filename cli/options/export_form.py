"""Options of how an exported file takes its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.data import NORMALISE, spec_without_images
from slimnet_cli.options.shared import as_one

if TYPE_CHECKING:
    import torch

    from slimnet.data.image_spec import ImageSpec

LAYOUTS = ("nhwc", "nchw")
OTHER_FORMS = (".pt2", ".xml")
"""The ends of the names of files that are not ONNX: exported programs, and OpenVINO's graphs."""


@dataclass(frozen=True)
class ExportForm:
    """The operator set, and how the file takes its inputs, as given on the command line."""

    opset: int | None
    with_preprocessing: bool
    layout: str | None
    normalise: str | None
    dynamic_size: bool

    def check(self, out: str) -> None:
        """Refuse options that do not belong together, or to the kind of file.

        Raises:
            click.UsageError: naming them.
        """
        if self.opset is not None and Path(out).suffix in OTHER_FORMS:
            raise click.UsageError("--opset is for ONNX files; leave it out, or name a file that ends in .onnx")
        if self.layout is not None and not self.with_preprocessing:
            raise click.UsageError("--layout is that of the bytes of --with-preprocessing; give that too")

    def options(self, known: ImageSpec | None, example: torch.Tensor) -> dict[str, Any]:
        """The arguments of `export_onnx` and of the other forms; `known` is what the bundle says of its images.

        Raises:
            click.UsageError: preprocessing is asked for, and the normalisation is not known.
            DataError: the normalisation does not fit the network.
        """
        images = known if self.normalise is None else spec_without_images(self.normalise, example, known)
        if self.with_preprocessing and images is None:
            raise click.UsageError(
                "the bundle does not say how its images are normalised; say it with --normalise, such as imagenet"
            )
        return {
            "images": images,
            "preprocessing": (self.layout or LAYOUTS[0]) if self.with_preprocessing else None,
            "dynamic_size": self.dynamic_size,
        }


OPTIONS = (
    click.option("--opset", type=int, help="The ONNX operator set.  [default: what torch writes by itself]"),
    click.option(
        "--with-preprocessing",
        is_flag=True,
        help="Take images as bytes (uint8, 0..255); the normalisation is part of the file.",
    ),
    click.option(
        "--layout",
        type=click.Choice(LAYOUTS, case_sensitive=False),
        help="The axes of these images: nhwc, as image files are decoded, or nchw.  [default: nhwc]",
    ),
    NORMALISE,
    click.option(
        "--dynamic-size",
        is_flag=True,
        help="Take images of any height and width, if the network does; checked at two sizes.",
    ),
)

export_form_options = as_one("form", ExportForm, OPTIONS)
"""Add the options; the command gets them as one `form`."""
