"""export_int8: a network as an int8 file with its certificate, all written only when all is complete."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from slimnet.data import ImageData
from slimnet.data.image_spec import ImageSpec
from slimnet.errors import DataError, ExportError, UsageError
from slimnet.export.capture import Captured, run
from slimnet.export.form import Form, capture_form, checked_inputs, metadata_of
from slimnet.export.int8.certificate import (
    INT8,
    MEASURING,
    Calibration,
    Int8Certificate,
    Int8File,
    Measurement,
    pairs_of,
)
from slimnet.export.int8.file import certificate_path, parts_of, runner_of, runtime_of, size_of
from slimnet.export.int8.quantisers import Quantiser, quantiser_for
from slimnet.export.onnx import check_request, check_size
from slimnet.export.preprocessing import Layout, check_images, check_one_image
from slimnet.modules.digest import weights_digest
from slimnet.modules.example_inputs import ExampleInputs, Inputs, tensors_in
from slimnet.steps import StepCallback, Steps, log_result
from slimnet.storage.files import whole_file
from slimnet.surgery.equivalence import same_shapes
from slimnet.torch_state.precision import autocast_off
from slimnet.version import __version__, installed_version

CALIBRATION_IMAGES = 128
"""On a published ResNet-20 and ResNet-56, 512 or 2,048 images bring logits no closer to those in float32 in the mean;
only the largest difference falls."""

CALIBRATION_BATCH = 32

FORMATS = {"onnxruntime": "ONNX", "openvino": "OpenVINO"}
"""The formats of the files, by the runtimes that they are for."""

DENSE = "dense"
"""What a certificate calls the network that another one was made from."""


@dataclass(frozen=True)
class Int8Export:
    """An int8 file that was written (`path`), and its certificate as JSON beside it (`certificate_path`).

    For OpenVINO `path` is the graph, with the weights in a .bin file beside it; `size_bytes` is that of both.
    """

    path: Path
    certificate_path: Path
    size_bytes: int
    certificate: Int8Certificate

    def __str__(self) -> str:
        return (
            f"{' and '.join(map(str, parts_of(self.path)))}: {FORMATS[self.certificate.runtime]} in int8, "
            f"{self.size_bytes:,} bytes, {self.certificate.file.layers} layers in int8; its certificate is "
            f"{self.certificate_path}"
        )


@autocast_off()
def export_int8(
    model: nn.Module,
    example_inputs: ExampleInputs | Inputs,
    path: str | Path,
    data: ImageData,
    *,
    dense: nn.Module | None = None,
    name: str = "slim",
    calibration_images: int | None = None,
    seed: int = 0,
    images: ImageSpec | None = None,
    preprocessing: Layout | None = None,
    dynamic_size: bool = False,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
    progress: StepCallback | None = None,
) -> Int8Export:
    """Quantise a network to an int8 file, with its certificate as JSON next to it; earlier files are replaced.

    onnxruntime quantises the float32 file that `export_onnx` would write. If `path` ends in .xml, NNCF quantises those
    of `export_openvino`. The quantisation is static, with a scale for each output channel; the ranges of activations
    are those on `calibration_images` (default: 128, or all if there are fewer) of the training images of `data`, drawn
    with `seed`. The certificate is measured on the test images, under the runtime of the file. If `dense`, the network
    from which this one was made, is given, the certificate covers it too, in float32 and in int8; `name` is the name of
    `model` in the certificate. `images` is the preprocessing (default: that of `data`); the other arguments are as for
    `export_onnx`. The networks are not changed.

    Raises:
        ExportError: the network cannot be exported, the quantiser refuses it, the runtime does not run the result, or
            it cannot be written.
        DataError: the data is not that of the network, or has fewer training images than asked for.
        InputError, UsageError: the arguments do not fit, or OpenVINO or NNCF is not installed.
    """
    check_request(metadata, opset)
    target = Path(path)
    quantiser = quantiser_for(target, opset)
    if name == DENSE and dense is not None:
        raise UsageError(f"{name!r} is what the certificate calls the dense network; give this one another name")
    inputs, form = Inputs.of(example_inputs), Form(images or data.spec, preprocessing, dynamic_size)
    networks = {name: model} if dense is None else {DENSE: dense, name: model}
    for network in networks.values():
        check_network(network, inputs)
    check_data(data, form, inputs)
    calibration, pixels = drawn(data, calibration_images, seed)
    entries = metadata_of(form, inputs) | dict(metadata or {})
    steps, beside = Steps(2 * len(networks) + 1, progress), certificate_path(target)
    with ExitStack() as stack:
        # The last one is put into place first, and the file itself last.
        *parts, certificate_file = [
            stack.enter_context(whole_file(each, ExportError)) for each in (*parts_of(target), beside)
        ]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slimnet-int8-")))
        maker = Maker(folder, inputs, form, pixels, calibration, entries, opset, quantiser, target.suffix)
        made = [maker.make(*each, steps, 2 * number) for number, each in enumerate(networks.items())]
        files = [*(float32 for float32, _ in made), *(int8 for _, int8 in made)]
        certificate = measured(files, data, form, calibration, quantiser, steps)
        for source, file in zip(parts_of(files[-1].path), parts, strict=True):
            shutil.copyfile(source, file)
        certificate_file.write_text(certificate.to_json() + "\n", encoding="utf-8")
        # Without this, an earlier file could for a moment be beside the new certificate or weights.
        target.unlink(missing_ok=True)
    log_result(f"int8 model written to {target}")
    return Int8Export(target, beside, size_of(target), certificate)


def exporting(name: str) -> str:
    """The step in which a network is written in float32."""
    return f"exporting {name}"


def quantising(name: str) -> str:
    """The step in which it is written in int8."""
    return f"quantising {name}"


@dataclass(frozen=True)
class Maker:
    """Makes the files of networks in a folder, in float32 and in int8, all in the same way."""

    folder: Path
    inputs: Inputs
    form: Form
    pixels: torch.Tensor
    calibration: Calibration
    metadata: Mapping[str, str]
    opset: int | None
    quantiser: Quantiser
    ending: str

    def make(self, name: str, network: nn.Module, steps: Steps, finished: int) -> tuple[Int8File, Int8File]:
        """The float32 and the int8 file of a network.

        Raises:
            ExportError: as `export_int8`.
        """
        digest = weights_digest(network)
        float32, int8 = (self.folder / f"{finished}{kind}{self.ending}" for kind in ("", INT8))
        with steps.step(finished, exporting(name)):
            captured = capture_form(network, self.inputs, self.form)
            self.quantiser.write(captured, float32, self.metadata, self.opset)
        with steps.step(finished + 1, quantising(name)):
            entries = {"quantisation": self.quantiser.scheme, "calibration": str(self.calibration)}
            layers = self.quantiser.quantise(float32, int8, self.batches(), entries)
            check_runs(captured, int8, name)
        return Int8File(name, float32, digest), Int8File(f"{name}{INT8}", int8, digest, layers)

    def batches(self) -> Iterator[np.ndarray]:
        """The calibration images as the file takes them."""
        return (self.form.inputs_of(some).numpy() for some in self.pixels.split(CALIBRATION_BATCH))


def measured(
    files: list[Int8File],
    data: ImageData,
    form: Form,
    calibration: Calibration,
    quantiser: Quantiser,
    steps: Steps,
) -> Int8Certificate:
    """The certificate of the last of some files.

    Raises:
        DataError, ExportError: as `Measurement.run`.
    """
    measurement, total = Measurement(files, pairs_of([file.name for file in files])), len(data.y_test)
    finished = steps.total - 1
    with steps.step(finished, MEASURING):
        measurement.run(
            data, form, lambda done: steps.report(finished, f"{MEASURING}, {done:,} of {total:,} test images")
        )
    versions = {"slimnet": __version__} | {package: installed_version(package) for package in quantiser.packages}
    return Int8Certificate(
        data.name,
        total,
        measurement.measured(),
        measurement.agreements(),
        calibration,
        quantiser.scheme,
        versions,
        runtime_of(files[-1].path),
    )


def check_network(network: nn.Module, inputs: Inputs) -> None:
    """Refuse a network that is not one of images in float32.

    Raises:
        UsageError, ExportError: naming what it is.
    """
    check_one_image(inputs, "int8")
    dtype = inputs.tensors[0].dtype
    if dtype != torch.float32:
        kind = str(dtype).removeprefix("torch.")
        raise UsageError(f"int8 is made from float32, but the network takes {kind}; convert it with .float()")
    check_size(network.state_dict().values())


def check_data(data: ImageData, form: Form, inputs: Inputs) -> None:
    """Refuse images of another number of channels than the network's.

    Raises:
        DataError: naming both.
        UsageError: the images of the form do not fit the network.
    """
    assert form.images is not None, "it is that of the data at least"
    channels = inputs.tensors[0].shape[1]
    if data.channels != channels:
        raise DataError(
            f"{data.name} has images of {data.channels} channels, but the network takes {channels}; name the data that "
            "it was trained on"
        )
    check_images(form.images, inputs)


def drawn(data: ImageData, count: int | None, seed: int) -> tuple[Calibration, torch.Tensor]:
    """The training images to calibrate with, as bytes `(N, H, W, C)`.

    Raises:
        DataError: there are fewer than asked for.
        UsageError: none are asked for.
    """
    have = len(data.x_train)
    if count is not None and count < 1:
        raise UsageError(f"calibration_images is {count}; it must be at least 1")
    if count is not None and count > have:
        raise DataError(
            f"{data.name} has {have:,} training images, fewer than the {count:,} to calibrate with; give at most so "
            "many with calibration_images="
        )
    rows = torch.randperm(have, generator=torch.Generator().manual_seed(seed))[: count or CALIBRATION_IMAGES]
    return Calibration(data.name, len(rows), seed), data.x_train[rows]


def check_runs(captured: Captured, path: Path, name: str) -> None:
    """Refuse an int8 file that does not give finite outputs of the network's shapes, at every batch size and size.

    Raises:
        ExportError: naming the network.
    """
    runner = runner_of(path)
    for inputs in checked_inputs(captured):
        actual = runner(inputs)
        if not same_shapes(tensors_in(run(captured.module, inputs)), actual):
            shapes = [tuple(tensor.shape) for tensor in actual]
            raise ExportError(f"{name} in int8 returns other shapes than the network, {shapes}; nothing was written")
