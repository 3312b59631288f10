"""verify_int8: an int8 file against its certificate, and its accuracy measured again on this machine."""

import json
from dataclasses import dataclass
from pathlib import Path

from slimnet.accuracy import Accuracy
from slimnet.data import ImageData
from slimnet.data.image_spec import ImageSpec
from slimnet.errors import DataError, ExportError
from slimnet.export.form import Form
from slimnet.export.int8.certificate import MEASURING, Int8Certificate, Int8File, Measurement
from slimnet.export.int8.file import digest_of, metadata_in, runner_of, stored_certificate
from slimnet.steps import StepCallback, Steps

ALLOWED = 0.005
"""How far top-1 accuracy may be from the certified one: on another CPU sums may be rounded, or saturate, elsewhere."""


@dataclass(frozen=True)
class Int8Verification:
    """An int8 file that is the one of its certificate, and its accuracy on this machine."""

    path: Path
    certificate: Int8Certificate
    measured: Accuracy

    @property
    def holds(self) -> bool:
        """Whether the accuracy is the certified one."""
        return abs(self.measured.top1 - self.certificate.file.accuracy.top1) <= ALLOWED

    def __str__(self) -> str:
        certified = self.certificate.file.accuracy
        return (
            f"{self.path} is the file of its certificate; its accuracy on {self.measured.n:,} test images of "
            f"{self.certificate.data} is {100 * self.measured.top1:.2f} % (certified: {100 * certified.top1:.2f} %), "
            f"in the best five {100 * self.measured.top5:.2f} % ({100 * certified.top5:.2f} %)"
        )


def verify_int8(path: str | Path, data: ImageData, *, progress: StepCallback | None = None) -> Int8Verification:
    """Check an int8 file and its certificate, the JSON file beside it: hash, and accuracy on test images of `data`.

    The images are those of the certificate, normalised as the file itself says.

    Raises:
        UsageError: there is no certificate beside it.
        ExportError: it is no file that its runtime runs, the certificate is none or is that of another file, the file
            does not say how images become its inputs, or its accuracy is not the certified one.
        DataError: the data is not that of the certificate.
    """
    file, again = Path(path), "export the network again with --int8"
    form = stated_form(file)
    beside = stored_certificate(file)
    certificate = Int8Certificate.read(beside)
    if digest_of(file) != certificate.file.sha256:
        raise ExportError(f"{file} is not the file of {beside}: its SHA-256 differs; {again}")
    if certificate.n > len(data.y_test):
        raise DataError(
            f"{data.name} has {len(data.y_test):,} test images, and the certificate is of {certificate.n:,} of "
            f"{certificate.data}; name the data that it was measured on"
        )
    steps = Steps(1, progress)
    name = certificate.file.name
    measurement = Measurement([Int8File(name, file, certificate.file.weights, certificate.file.layers)], [])
    with steps.step(0, MEASURING):
        measurement.run(
            data.with_fewer_tests(certificate.n),
            form,
            lambda done: steps.report(0, f"{MEASURING}, {done:,} of {certificate.n:,} test images"),
        )
    (measured,) = measurement.measured()
    found = Int8Verification(file, certificate, measured.accuracy)
    if not found.holds:
        raise ExportError(f"{found}: they differ; {again}, or name the data that it was measured on")
    return found


def stated_form(path: Path) -> Form:
    """How a file takes images, by its metadata.

    Raises:
        ExportError: it does not say so, or is no file that its runtime runs.
    """
    # By the runtime, not by onnx, which would open other files that this one names.
    about = metadata_in(runner_of(path))
    try:
        if about["image_dtype"] == "uint8":
            return Form(preprocessing="nhwc" if about["image_layout"] == "NHWC" else "nchw")
        mean, std = (tuple(map(float, json.loads(about[key]))) for key in ("image_mean", "image_std"))
        height, width = map(int, json.loads(about["image_size"]))
        low, high = map(float, json.loads(about["image_value_range"]))
        return Form(ImageSpec(mean, std, (height, width), value_range=(low, high)))
    except (LookupError, TypeError, ValueError, RecursionError, DataError) as error:
        raise ExportError(
            f"{path} does not say how images become its inputs; export the network again with --int8"
        ) from error
