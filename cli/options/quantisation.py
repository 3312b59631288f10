"""Options of an export in int8: images to calibrate and measure on, and the network to compare it with."""

from __future__ import annotations

from dataclasses import dataclass

import click
from slimnet_cli.options.groups import in_group
from slimnet_cli.options.paths import existing
from slimnet_cli.options.shared import as_one

quantisation = in_group("Int8")

KINDS = ("onnx", "openvino")
"""The kinds of files that are written in int8."""


@dataclass(frozen=True)
class Quantisation:
    """Whether the file is in int8, and the images for calibration and certificate, as given on the command line."""

    int8: bool
    dense: str | None
    calibration_images: int | None
    calibration_seed: int | None
    certificate_images: int | None

    def check(self, kind: str) -> None:
        """Refuse options that do not belong together, or to the kind of file.

        Raises:
            click.UsageError: naming them.
            UsageError: what quantises for this kind is not installed.
        """
        if self.int8 and kind not in KINDS:
            raise click.UsageError(
                "--int8 is for ONNX files and for OpenVINO; leave it out, or name a file that ends in .onnx or .xml"
            )
        if self.int8 and kind == "openvino":
            from slimnet.export.int8.nncf_package import require_nncf

            require_nncf()
        given = {
            "--dense": self.dense,
            "--calibration-images": self.calibration_images,
            "--calibration-seed": self.calibration_seed,
            "--certificate-images": self.certificate_images,
        }
        for option, value in given.items():
            if value is not None and not self.int8:
                raise click.UsageError(f"{option} is for --int8; give that too, or leave it out")


OPTIONS = (
    quantisation(
        "--int8",
        is_flag=True,
        help="Write the file in int8, calibrated on training images of --data, and its certificate next to it "
        "(F.onnx.json): accuracy and agreement on the test images. An ONNX file is quantised by onnxruntime, one for "
        "OpenVINO by NNCF (an extra).",
    ),
    quantisation(
        "--dense",
        metavar="CKPT",
        callback=existing,
        help="The checkpoint that the bundle was made from: the certificate covers this network as well, in float32 "
        "and in int8.",
    ),
    quantisation(
        "--calibration-images",
        type=click.IntRange(1),
        metavar="N",
        help="Calibrate on this many training images.  [default: 128, or all if there are fewer]",
    ),
    quantisation(
        "--calibration-seed", type=click.IntRange(0), metavar="SEED", help="Seed that draws them.  [default: 0]"
    ),
    quantisation(
        "--certificate-images",
        type=click.IntRange(1),
        metavar="N",
        help="Measure the certificate on this many test images, evenly spaced.  [default: all]",
    ),
)

quantisation_options = as_one("quantisation", Quantisation, OPTIONS)
"""Add the options; the command gets them as one `quantisation`."""
