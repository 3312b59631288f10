"""export_onnx: one ONNX file for any batch size, with BatchNorm folded, checked against the network."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from onnxscript import ir
from torch import nn

from slimnet.errors import ExportError, UsageError
from slimnet.export.capture import Captured, capture, run, with_batch
from slimnet.export.onnx_graph import translate
from slimnet.export.onnx_runner import OnnxRunner
from slimnet.modules.example_inputs import ExampleInputs, Inputs, tensors_in
from slimnet.modules.network import Network
from slimnet.storage.files import whole_file
from slimnet.surgery.certificate import dtype_name
from slimnet.surgery.equivalence import BATCHES, nothing_finite, relative_difference, same_shapes, tolerance_for
from slimnet.version import __version__

SIZE_LIMIT = 2**31 - 1
"""The most bytes that one self-contained ONNX file may have: protobuf counts them in 32 bits."""

RANDOM = "drawn anew in every run; only the shapes of outputs were compared with the network's"
"""The metadata entry of a file whose outputs depend on random numbers."""

OPSETS = range(18, onnx.defs.onnx_opset_version() + 1)
"""The operator sets that both torch's exporter and the installed onnx support."""


@dataclass(frozen=True)
class OnnxExport:
    """An ONNX file that was written and checked.

    `max_rel_difference` is the largest difference between an output and the network's, divided by its largest value,
    over the batch sizes in `batches`. It is None if the outputs depend on random numbers: the file draws its own in
    every run, so that only the shapes of its outputs can be compared.
    """

    path: Path
    opset: int
    size_bytes: int
    max_rel_difference: float | None
    batches: tuple[int, ...] = BATCHES

    def __str__(self) -> str:
        batches = " and ".join(map(str, self.batches))
        found = (
            f"draws random numbers of its own, so only the shapes of its outputs were compared with the network's at "
            f"batch {batches}"
            if self.max_rel_difference is None
            else f"outputs within {self.max_rel_difference:.1e} of the network's at batch {batches}"
        )
        return f"{self.path}: ONNX opset {self.opset}, {self.size_bytes:,} bytes, {found}"


def export_onnx(
    model: nn.Module,
    example_inputs: ExampleInputs | Inputs,
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    opset: int | None = None,
) -> OnnxExport:
    """Write a network as one self-contained ONNX file and check it; an earlier file at `path` is replaced.

    BatchNorm is folded into the preceding convolutions and linear layers, the first axis of every input is the
    dynamic dimension "batch", inputs are named as in `forward`, outputs by their keys. `metadata` is added to the
    file's metadata, next to the versions of opset, slimnet and torch. The file is written only after it has passed
    onnx's checker and onnxruntime's outputs on the CPU match the network's in evaluation mode, at batch sizes 1 and 5.
    The model is not changed.

    Raises:
        ExportError: the network cannot be exported for any batch size, the result differs, is over 2 GB, or cannot
            be written.
        InputError, UsageError: the example inputs or the arguments do not fit.
    """
    check_request(metadata, opset)
    check_size(model.state_dict().values())
    target = Path(path)
    with whole_file(target, ExportError) as file:
        export = write_onnx(capture(model, example_inputs), file, metadata, opset)
    return replace(export, path=target)


def write_onnx(
    captured: Captured, path: Path, metadata: Mapping[str, str] | None = None, opset: int | None = None
) -> OnnxExport:
    """Write a captured network as ONNX to a path and check the file.

    Raises:
        ExportError: as `export_onnx`.
    """
    model = translate(captured, opset)
    written = model.opset_imports[""]
    random = {"random_numbers": RANDOM} if captured.random else {}
    model.metadata_props.update(described(random | dict(metadata or {}), written))
    check_size([weight.const_value for weight in model.graph.initializers.values() if weight.const_value])
    path.write_bytes(ir.to_proto(model).SerializeToString())
    return OnnxExport(path, written, path.stat().st_size, check_outputs(captured, path))


def check_outputs(captured: Captured, path: Path) -> float | None:
    """Run file and network on the same inputs at every batch size; returns the largest relative difference.

    None if the outputs depend on random numbers: then only shapes are compared.

    Raises:
        ExportError: it exceeds the tolerance, shapes differ, or the network's outputs have no finite value.
    """
    runner, network, worst = opened(captured, path), type(captured.module).__name__, 0.0
    for batch in BATCHES:
        inputs = with_batch(captured.inputs, batch)
        expected, actual = tensors_in(run(captured.module, inputs)), runner(inputs)
        if nothing_finite(expected):
            raise ExportError(f"{network} returns no finite number at batch {batch}, so that nothing can be compared")
        if captured.random and same_shapes(expected, actual):
            continue
        worst = max(worst, relative_difference(expected, actual))
        if worst > tolerance_for(expected):
            raise ExportError(
                f"{network} as ONNX differs from the network by {worst:.1e} at batch {batch}, "
                f"more than {tolerance_for(expected):.0e}; nothing was written"
            )
    return None if captured.random else worst


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
