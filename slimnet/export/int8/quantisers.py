"""The two quantisers in one table: what each writes in float32, and how it makes int8 of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slimnet.errors import UsageError
from slimnet.export.agreement import check_agreement
from slimnet.export.capture import Captured
from slimnet.export.int8 import quantise as by_onnxruntime
from slimnet.export.int8 import quantise_openvino as by_nncf
from slimnet.export.int8.file import RuntimeName, runtime_of
from slimnet.export.int8.nncf_package import require_nncf
from slimnet.export.onnx import described, write_onnx
from slimnet.export.openvino import convert
from slimnet.export.openvino_model import OpenVinoRunner, load_openvino

Write = Callable[[Captured, Path, Mapping[str, str], int | None], object]
Quantise = Callable[[Path, Path, Iterable[np.ndarray], Mapping[str, str]], int]


@dataclass(frozen=True)
class Quantiser:
    """How the files of a runtime are made.

    `write` writes a captured network in float32, with metadata and an operator set; `quantise` makes an int8 file of
    that one, with calibration images and more metadata, and returns the number of layers in int8. `scheme` says how the
    numbers are rounded, `packages` are those whose versions a certificate states, and `require` refuses to begin where
    one of them is missing.
    """

    scheme: str
    packages: tuple[str, ...]
    write: Write
    quantise: Quantise
    require: Callable[[], object]


def write_openvino(captured: Captured, path: Path, metadata: Mapping[str, str], _: int | None) -> None:
    """Write a captured network in OpenVINO's format, in float32, and compare it with the network.

    Raises:
        ExportError: as `export_openvino`.
    """
    onnx = path.with_suffix(".onnx")
    written = write_onnx(captured, onnx)
    convert(onnx, path, described(metadata, written.opset))
    check_agreement(captured, OpenVinoRunner(path), "OpenVINO", own_random_numbers=True)


def require_openvino() -> None:
    """Refuse to begin without OpenVINO or NNCF.

    Raises:
        UsageError: one of them is missing.
    """
    require_nncf()
    load_openvino()


QUANTISERS: Mapping[RuntimeName, Quantiser] = {
    "onnxruntime": Quantiser(
        by_onnxruntime.SCHEME,
        ("onnxruntime", "onnx", "torch", "numpy"),
        write_onnx,
        by_onnxruntime.quantise,
        lambda: None,
    ),
    "openvino": Quantiser(
        by_nncf.SCHEME,
        ("openvino", "nncf", "onnx", "torch", "numpy"),
        write_openvino,
        by_nncf.quantise,
        require_openvino,
    ),
}


def quantiser_for(path: Path, opset: int | None) -> Quantiser:
    """The quantiser of a file's runtime.

    Raises:
        UsageError: a package that it needs is missing, or there is an operator set for another format than ONNX.
    """
    runtime = runtime_of(path)
    if opset is not None and runtime != "onnxruntime":
        raise UsageError(f"opset is for ONNX files, and {path} is one for OpenVINO; leave it out")
    QUANTISERS[runtime].require()
    return QUANTISERS[runtime]
