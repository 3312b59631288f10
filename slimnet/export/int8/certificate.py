"""The certificate of an int8 file: accuracy and agreement of dense and slim network, each in float32 and in int8."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch

from slimnet.accuracy import Accuracy, Hits
from slimnet.data import ImageData
from slimnet.errors import DataError, ExportError
from slimnet.export.form import Form
from slimnet.export.int8.file import RuntimeName, digest_of, runner_of, size_of
from slimnet.modules.example_inputs import Inputs
from slimnet.storage.field_types import Amount, Share, Size
from slimnet.storage.records import read_record

INT8 = " int8"
"""Behind the name of a network that was quantised."""

MEASURING = "measuring"
"""The last step of an export in int8, and the one of its verification."""

BATCH = 64


@dataclass(frozen=True)
class Calibration:
    """How the ranges of activations were found: on `n` training images of a data set, drawn with a seed."""

    data: str
    n: Size
    seed: int
    method: Literal["minimum and maximum"] = "minimum and maximum"

    def __str__(self) -> str:
        return f"{self.method} on {self.n:,} training images of {self.data}, drawn with seed {self.seed}"


@dataclass(frozen=True)
class MeasuredFile:
    """A network as a file under its runtime.

    `weights` is the digest of the network it was made from, `sha256` that of the file (for OpenVINO of the graph, with
    the weights behind it), `size_bytes` that of both, `layers` the number of its layers in int8.
    """

    name: str
    accuracy: Accuracy
    weights: str
    sha256: str
    size_bytes: Size
    layers: int


@dataclass(frozen=True)
class LogitAgreement:
    """How far a network's logits are from another's on the same images.

    `top1` is the share of images with the same best class; `largest` and `mean` are absolute differences of logits.
    """

    name: str
    other: str
    top1: Share
    largest: Amount
    mean: Amount

    def __str__(self) -> str:
        return (
            f"{self.name} and {self.other}: the same class on {100 * self.top1:.2f} % of the images, logits apart by "
            f"{self.mean:.2g} in the mean and {self.largest:.2g} at most"
        )


@dataclass(frozen=True)
class Int8Certificate:
    """What an int8 file computes, measured on `n` test images of `data` under `runtime` on the CPU.

    `networks` are dense, slim, dense int8 and slim int8, or, without the dense network, the two that there are.
    """

    data: str
    n: Size
    networks: tuple[MeasuredFile, ...]
    agreements: tuple[LogitAgreement, ...]
    calibration: Calibration
    scheme: str
    versions: Mapping[str, str]
    runtime: RuntimeName = "onnxruntime"

    @property
    def file(self) -> MeasuredFile:
        """The file that this is the certificate of, the last one."""
        return self.networks[-1]

    def to_json(self) -> str:
        """The certificate as JSON text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    @classmethod
    def read(cls, path: Path) -> "Int8Certificate":
        """Read it from an untrusted file.

        Raises:
            ExportError: it is not such a certificate.
        """
        found = read_record(cls, path, ExportError, advice="export the network again with --int8")
        if not found.networks:
            raise ExportError(f"{path}: it is of no network; export the network again with --int8")
        return found


@dataclass(frozen=True)
class Int8File:
    """A file to be measured, the digest of its network's weights, and the number of its layers in int8."""

    name: str
    path: Path
    weights: str
    layers: int = 0


@dataclass
class RunningAgreement:
    """Sums over the batches so far of how far logits are from others."""

    same: int = 0
    largest: float = 0.0
    total: float = 0.0
    rows: int = 0
    values: int = 0

    def add(self, logits: torch.Tensor, others: torch.Tensor) -> None:
        """Compare a batch of logits `(N, classes)` with another's."""
        apart = (logits.double() - others.double()).abs()
        self.same += int((logits.argmax(1) == others.argmax(1)).sum())
        self.largest = max(self.largest, float(apart.max()))
        self.total += float(apart.sum())
        self.rows += len(logits)
        self.values += logits.numel()

    def between(self, name: str, other: str) -> LogitAgreement:
        """What the sums amount to."""
        return LogitAgreement(name, other, self.same / self.rows, self.largest, self.total / self.values)


@dataclass
class Measurement:
    """Files on the same test images, batch by batch."""

    files: Sequence[Int8File]
    pairs: Sequence[tuple[str, str]]
    hits: dict[str, Hits] = field(default_factory=dict)
    apart: dict[tuple[str, str], RunningAgreement] = field(default_factory=dict)

    def run(self, data: ImageData, form: Form, report: Callable[[int], None]) -> None:
        """Run all files on all test images; `report` is called with the number of images so far.

        Raises:
            DataError: they do not give one finite logit for each class.
            ExportError: they do not take the images.
        """
        runners = {file.name: runner_of(file.path) for file in self.files}
        self.hits = {name: Hits() for name in runners}
        self.apart = {pair: RunningAgreement() for pair in self.pairs}
        done = 0
        for pixels, labels in zip(data.x_test.split(BATCH), data.y_test.split(BATCH), strict=True):
            inputs = Inputs.of(form.inputs_of(pixels))
            scores = {name: logits_of(runner(inputs), name, data) for name, runner in runners.items()}
            for name, logits in scores.items():
                self.hits[name].add(logits, labels)
            for (name, other), sums in self.apart.items():
                sums.add(scores[name], scores[other])
            done += len(labels)
            report(done)

    def measured(self) -> tuple[MeasuredFile, ...]:
        """Every file with its accuracy."""
        found = []
        for file in self.files:
            accuracy = self.hits[file.name].accuracy
            assert accuracy is not None, "data holds at least one test image"
            digest, size = digest_of(file.path), size_of(file.path)
            found.append(MeasuredFile(file.name, accuracy, file.weights, digest, size, file.layers))
        return tuple(found)

    def agreements(self) -> tuple[LogitAgreement, ...]:
        """Every pair with its agreement."""
        return tuple(sums.between(*pair) for pair, sums in self.apart.items())


def logits_of(outputs: Sequence[torch.Tensor], name: str, data: ImageData) -> torch.Tensor:
    """The logits `(N, classes)` among a file's outputs.

    Raises:
        DataError: they are not, or not finite.
    """
    first, classes = outputs[0], len(data.classes)
    if first.ndim != 2 or first.shape[1] != classes:
        raise DataError(
            f"{name} answers images of {data.name} with {tuple(first.shape)}, but the data has {classes} classes; name "
            "the data that it was trained on"
        )
    if not first.isfinite().all():
        raise DataError(f"{name} gives logits that are not finite on images of {data.name}; nothing can be compared")
    return first


def pairs_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Which of these networks are compared: each with the first, and what was quantised with what it was made from.

    Two networks in int8 are compared with each other as well.
    """
    quantised = [name for name in names if name.endswith(INT8)]
    pairs = [(name, names[0]) for name in names[1:]]
    pairs += [(name, name.removesuffix(INT8)) for name in quantised]
    pairs += [(quantised[-1], quantised[0])] if len(quantised) > 1 else []
    return list(dict.fromkeys(pairs))
