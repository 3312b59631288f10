"""export_onnx: one ONNX file for any batch size, with BatchNorm folded, checked against the network."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from torch import nn

from slimnet.data.image_spec import ImageSpec
from slimnet.errors import ExportError, UsageError
from slimnet.export.agreement import Agreement, check_agreement
from slimnet.export.capture import Captured
from slimnet.export.form import CAPTURING, CHECKING, EXPORT, Form, capture_form, checked_sizes, conditions, metadata_of
from slimnet.export.onnx_runner import OnnxRunner
from slimnet.export.preprocessing import Layout
from slimnet.modules.example_inputs import ExampleInputs, Inputs, check_module
from slimnet.modules.network import Network
from slimnet.steps import StepCallback, Steps, log_result
from slimnet.storage.files import whole_file
from slimnet.surgery.certificate import dtype_name
from slimnet.surgery.equivalence import BATCHES
from slimnet.torch_state.precision import autocast_off
from slimnet.version import __version__

SIZE_LIMIT = 2**31 - 1
"""The most bytes that one self-contained ONNX file may have: protobuf counts them in 32 bits."""

RANDOM = "drawn anew in every run; only the shapes of outputs were compared with the network's"
"""The metadata entry of a file whose outputs depend on random numbers."""

OPSETS = range(18, onnx.defs.onnx_opset_version() + 1)
"""The operator sets that both torch's exporter and the installed onnx support."""


@dataclass(frozen=True)
class OnnxExport:
    """The result of `export_onnx`: a file whose outputs were compared with the network's.

    `max_rel_difference` is the largest difference between an output and the network's, divided by its largest value,
    over the batch sizes in `batches`, and the `sizes` (height and width) of images if these are dynamic. It is None if
    the outputs depend on random numbers: the file draws its own in every run, so that only the shapes of its outputs
    can be compared. `reordered` is whether the file sorts scores that are equal but for rounding in another order than
    torch does; the outputs are then compared with the network's in that order.
    """

    path: Path
    opset: int
    size_bytes: int
    max_rel_difference: float | None
    batches: tuple[int, ...] = BATCHES
    sizes: tuple[tuple[int, int], ...] = ()
    reordered: bool = False

    def __str__(self) -> str:
        where = conditions(self.batches, self.sizes)
        found = (
            f"draws random numbers of its own, so only the shapes of its outputs were compared with the network's "
            f"{where}"
            if self.max_rel_difference is None
            else f"outputs within {self.max_rel_difference:.1e} of the network's {where}"
        )
        order = "; scores that are equal but for rounding are sorted in another order" if self.reordered else ""
        return f"{self.path}: ONNX opset {self.opset}, {self.size_bytes:,} bytes, {found}{order}"


@autocast_off()
def export_onnx(
    model: nn.Module,
    example_inputs: ExampleInputs | Inputs,
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    opset: int | None = None,
    images: ImageSpec | None = None,
    preprocessing: Layout | None = None,
    dynamic_size: bool = False,
    progress: StepCallback | None = None,
) -> OnnxExport:
    """Write a network as one self-contained ONNX file and check it; an earlier file at `path` is replaced.

    BatchNorm is folded into the preceding convolutions and linear layers, the first axis of every input is the
    dynamic dimension "batch", inputs are named as in `forward`, outputs by their keys. `metadata` is added to the
    file's metadata, next to the versions of opset, slimnet and torch. The file is written only after it has passed
    onnx's checker and onnxruntime's outputs on the CPU match the network's in evaluation mode, at batch sizes 1 and 5.
    The model is not changed.

    `images`, how images become inputs of the network, is stated in the metadata too (docs/onnx.md). With
    `preprocessing`, "nhwc" or "nchw", it is part of the graph instead: the file takes images as bytes (uint8), and was
    also compared with the network after slimnet's own preprocessing. With `dynamic_size` it takes images of any height
    and width, and is compared at two sizes. `progress` is as for `slim`.

    Raises:
        ExportError: the network cannot be exported for any batch size, or for images of any size if that was asked
            for, the result differs, is over 2 GB, or cannot be written.
        InputError, UsageError: the example inputs or the arguments do not fit.
    """
    check_request(metadata, opset)
    check_size(check_module(model).state.values())
    target, form, steps = Path(path), Form(images, preprocessing, dynamic_size), Steps(len(EXPORT), progress)
    with whole_file(target, ExportError) as file:
        with steps.step(0, CAPTURING):
            captured = capture_form(model, example_inputs, form)
        with steps.step(1, CHECKING):
            export = write_onnx(captured, file, metadata_of(form, example_inputs) | dict(metadata or {}), opset)
    log_result(f"ONNX model written to {target}")
    return replace(export, path=target)


def write_onnx(
    captured: Captured, path: Path, metadata: Mapping[str, str] | None = None, opset: int | None = None
) -> OnnxExport:
    """Write a captured network as ONNX to a path and check the file.

    Raises:
        ExportError: as `export_onnx`.
    """
    # Only here: it imports onnxscript, which takes two seconds that loading a bundle does not need.
    from slimnet.export import onnx_graph

    model = onnx_graph.translate(captured, opset)
    written = model.opset_imports[""]
    random = {"random_numbers": RANDOM} if captured.random else {}
    model.metadata_props.update(described(random | dict(metadata or {}), written))
    check_size([weight.const_value for weight in model.graph.initializers.values() if weight.const_value])
    path.write_bytes(onnx_graph.serialise(model))
    agreement, sizes = check_outputs(captured, path), checked_sizes(captured)
    size = path.stat().st_size
    return OnnxExport(path, written, size, agreement.difference, sizes=sizes, reordered=agreement.reordered)


def check_outputs(captured: Captured, path: Path) -> Agreement:
    """Compare the file with the network, see `check_agreement`.

    Raises:
        ExportError: they differ, or onnxruntime rejects the file.
    """
    runner = opened(captured, path)
    return check_agreement(captured, runner, "ONNX", own_random_numbers=True, selections=runner.selections)


def opened(captured: Captured, path: Path) -> OnnxRunner:
    """A runner of the file of a captured network.

    Raises:
        ExportError: onnxruntime rejects it, as it does many operators in other types than float32.
    """
    try:
        return OnnxRunner(path)
    except ExportError as error:
        dtype = dtype_name(Network.of(captured.module))
        if dtype == "float32":
            raise
        raise ExportError(f"{error}; the network is {dtype}, convert it with .float()") from error


def described(metadata: Mapping[str, str] | None, opset: int) -> dict[str, str]:
    """The metadata of a file: the caller's, and the versions that wrote it."""
    return {
        **(metadata or {}),
        "opset": str(opset),
        "slimnet": __version__,
        "torch": str(torch.__version__),
    }


def check_request(metadata: Mapping[str, str] | None, opset: int | None) -> None:
    """Refuse an operator set that cannot be written, or metadata that is not text.

    Raises:
        UsageError: naming it.
    """
    if opset is not None and opset not in OPSETS:
        raise UsageError(f"opset is {opset!r}; it must be from {OPSETS[0]} to {OPSETS[-1]}")
    for pair in (metadata or {}).items():
        if not all(isinstance(text, str) for text in pair):
            raise UsageError(f"metadata {pair[0]!r} is {pair[1]!r}; metadata maps text to text")


def check_size(weights: Iterable[object]) -> None:
    """Refuse weights that do not fit into one file.

    Raises:
        ExportError: naming their size.
    """
    size = sum(getattr(weight, "nbytes", 0) for weight in weights)
    if size > SIZE_LIMIT:
        raise ExportError(
            f"the weights take {size / 1e9:.2f} GB, but one ONNX file holds at most {SIZE_LIMIT / 1e9:.2f} GB; "
            "convert the network to float16 with .half()"
        )
