"""Contenders: networks to be measured, in one form or several."""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import nn

from slimnet.benchmark.counts import Counts, count_module, count_onnx
from slimnet.benchmark.openvino_counts import count_openvino
from slimnet.errors import UsageError
from slimnet.export.onnx import export_onnx
from slimnet.export.openvino_model import GRAPH, WEIGHTS
from slimnet.modules.example_inputs import ExampleInputs, Inputs

Form = Literal["module", "onnx", "openvino"]
"""The form of a network that a runtime takes: a module, an ONNX file, or the graph of OpenVINO's own format."""


@dataclass(frozen=True)
class Contender:
    """A network to be measured: as a module, as an ONNX file, or both; or in OpenVINO's own format.

    `files` are files on disk whose sizes are compared, by kind ("safetensors", "onnx", ...).
    """

    name: str
    model: nn.Module | None = None
    onnx: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    openvino: Path | None = None

    def has(self, form: Form) -> bool:
        """Whether the network is available in a form."""
        return {"module": self.model, "onnx": self.onnx, "openvino": self.openvino}[form] is not None


Models = Sequence[Contender] | Mapping[str, nn.Module | Path | str]
"""Contenders, or modules and ONNX files by name."""


@dataclass(frozen=True)
class Cell:
    """The configuration of one latency: device, runtime, threads and batch size."""

    device: str
    runtime: str
    threads: int
    batch: int


def contenders_of(models: Models) -> list[Contender]:
    """Contenders, at least two.

    Raises:
        UsageError: there are fewer than two, or one is no network.
    """
    if isinstance(models, Mapping):
        found = [_contender(name, source) for name, source in models.items()]
    else:
        found = list(models)
    if len(found) < 2:
        raise UsageError(f"{len(found)} network given, nothing to compare it with; pass at least two")
    return found


def _contender(name: str, source: nn.Module | Path | str) -> Contender:
    if isinstance(source, nn.Module):
        return Contender(name, source)
    if isinstance(source, str | Path):
        return contender_of_file(name, Path(source))
    raise UsageError(f"{name} is a {type(source).__name__}; pass a module or the path of an ONNX file")


def contender_of_file(name: str, path: Path) -> Contender:
    """The contender of a file: an ONNX file, or, if it ends in .xml, the graph of OpenVINO's own format."""
    if path.suffix != GRAPH:
        return Contender(name, onnx=path, files={"onnx": path})
    return Contender(name, openvino=path, files={"openvino graph": path, "openvino weights": path.with_suffix(WEIGHTS)})


def count(contenders: Sequence[Contender], example: ExampleInputs | Inputs) -> tuple[Counts, ...]:
    """Parameters, MACs and file sizes of every contender, all counted in the same way."""
    if all(contender.model is not None for contender in contenders):
        on_cpu = Inputs.of(example).map(lambda tensor: tensor.cpu())
        return tuple(
            count_module(contender.name, copy.deepcopy(contender.model).eval().cpu(), on_cpu, contender.files)
            for contender in contenders
            if contender.model is not None
        )
    return tuple(count_file(contender) for contender in contenders)


def count_file(contender: Contender) -> Counts:
    """Parameters, MACs and file sizes of a contender by its ONNX file, or by OpenVINO's."""
    if contender.onnx is not None:
        return count_onnx(contender.name, contender.onnx, contender.files)
    assert contender.openvino is not None, "a contender that is compared with files is one"
    return count_openvino(contender.name, contender.openvino, contender.files)


def with_onnx(contender: Contender, example: ExampleInputs | Inputs, folder: Path) -> Contender:
    """The contender with an ONNX file, which is exported into `folder` if it has none."""
    if contender.onnx is not None or contender.model is None:
        return contender
    # In a new folder: a name need not be a valid file name, and two contenders may have the same.
    path = export_onnx(contender.model, example, Path(tempfile.mkdtemp(dir=folder)) / "model.onnx").path
    return replace(contender, onnx=path, files={**contender.files, "onnx": path})


def in_form(contender: Contender, form: Form, example: ExampleInputs | Inputs, folder: Path) -> Contender:
    """The contender with a further form, which is created in `folder` if it is missing and can be created."""
    return with_onnx(contender, example, folder) if form == "onnx" else contender
