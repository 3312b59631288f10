"""Options of what is exported, and of how the file takes its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from slimnet_cli.options.data import spec_without_images
from slimnet_cli.options.shared import as_one

if TYPE_CHECKING:
    import torch

    from slimnet.data.image_spec import ImageSpec

LAYOUTS = ("nhwc", "nchw")
KINDS = {".onnx": "onnx", ".pt2": "pt2", ".xml": "openvino", ".param": "ncnn", ".pte": "executorch"}
"""The kinds of files by the ends of their names."""
SINGLE = ("ncnn", "executorch")
"""Those that take single inputs of one shape, as the network does."""


@dataclass(frozen=True)
class ExportForm:
    """The format, the operator set, and how the file takes its inputs, as given on the command line."""

    file_format: str | None
    opset: int | None
    with_preprocessing: bool
    layout: str | None
    dynamic_size: bool

    def kind(self, out: str) -> str:
        """The kind of the file at a path: that of --format, or by the extension of its name.

        Raises:
            click.UsageError: neither says it, or it is the path of a folder.
        """
        found = self.file_format or _kind_by_name(out)
        if Path(out).is_dir():
            raise click.UsageError(f"{out} is a folder; name a file")
        if found is None:
            *first, last = KINDS
            known = f"{', '.join(first)} or {last}"
            raise click.UsageError(
                f"the extension of {out} names no format; name a file that ends in {known}, or give --format"
            )
        return found

    def check(self, out: str) -> None:
        """Refuse options that do not belong together, or to the kind of file.

        Raises:
            click.UsageError: naming them.
        """
        kind = self.kind(out)
        if _kind_by_name(out) not in (None, kind):
            ending = next(ending for ending, name in KINDS.items() if name == kind)
            raise click.UsageError(f"{out} does not have the extension of {kind}; name a file that ends in {ending}")
        if kind == "openvino" and Path(out).suffix != ".xml":
            raise click.UsageError(
                f"{out} does not end in .xml, by which OpenVINO finds the weights; name a file that does"
            )
        if kind in SINGLE and (self.with_preprocessing or self.dynamic_size):
            raise click.UsageError(
                f"a file for {kind} takes float32 of one size; leave --with-preprocessing and --dynamic-size out"
            )
        if self.opset is not None and kind != "onnx":
            raise click.UsageError("--opset is for ONNX files; leave it out, or name a file that ends in .onnx")
        if self.layout is not None and not self.with_preprocessing:
            raise click.UsageError("--layout is that of the bytes of --with-preprocessing; give that too")

    def options(self, known: ImageSpec | None, normalise: str | None, example: torch.Tensor) -> dict[str, Any]:
        """The arguments of `export_onnx` and of the other forms.

        `known` is what the bundle or the data says of the images, and `normalise` what the command line says without
        data.

        Raises:
            click.UsageError: preprocessing is asked for, and the normalisation is not known.
            DataError: the normalisation does not fit the network.
        """
        images = known if normalise is None else spec_without_images(normalise, example, known)
        if self.with_preprocessing and images is None:
            raise click.UsageError(
                "it is not known how the network's images are normalised; say it with --normalise, such as imagenet"
            )
        return {
            "images": images,
            "preprocessing": (self.layout or LAYOUTS[0]) if self.with_preprocessing else None,
            "dynamic_size": self.dynamic_size,
        }


def _kind_by_name(out: str) -> str | None:
    """The kind of a file by its extension, in capitals or not; None if that is unknown."""
    return KINDS.get(Path(out).suffix.lower())


OPTIONS = (
    click.option(
        "--format",
        "file_format",
        type=click.Choice(tuple(KINDS.values()), case_sensitive=False),
        help="The format of the file.  [default: by the extension of its name]",
    ),
    click.option("--opset", type=int, help="The ONNX operator set.  [default: that of torch's exporter]"),
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
    click.option(
        "--dynamic-size",
        is_flag=True,
        help="Take images of any height and width, if the network does; checked at two sizes.",
    ),
)

export_form_options = as_one("form", ExportForm, OPTIONS)
"""Add the options; the command gets them as one `form`."""
