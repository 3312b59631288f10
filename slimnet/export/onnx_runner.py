"""Runs an ONNX file under onnxruntime on the CPU."""

from pathlib import Path

import onnx
import onnxruntime
import torch

from slimnet.errors import ExportError, reason, whole_reason
from slimnet.modules.example_inputs import Inputs
from slimnet.storage.files import read_bytes

LARGEST = (1 << 31) - 1
"""Bytes of the largest ONNX file: the limit of protobuf."""


BEYOND_WEIGHTS = 1 << 26
"""Bytes for the graph, and for constants that do not depend on the weights."""


def limit_for(weights: Path) -> int:
    """The largest size in bytes of an ONNX file that has the weights in a safetensors file."""
    return min(LARGEST, BEYOND_WEIGHTS + 4 * weights.stat().st_size)


class OnnxRunner:
    """Runs an ONNX file that has passed onnx's checker: maps `Inputs` to the list of output tensors.

    `limit` is the largest size in bytes; loading a file takes several times its size in memory.

    Raises:
        ExportError: the file is larger, is not a valid ONNX model, or onnxruntime rejects it.
    """

    def __init__(self, path: Path, limit: int = LARGEST) -> None:
        self.path = path
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            content = read_bytes(path, limit)
            refuse_other_files(onnx.load_model_from_string(content))
            onnx.checker.check_model(content, full_check=True)
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the errors of protobuf, onnx and onnxruntime have no common base
            raise ExportError(f"{path.name} is not an ONNX model that onnxruntime runs: {reason(error)}") from error

    def __call__(self, inputs: Inputs) -> list[torch.Tensor]:
        """Run the model.

        Raises:
            ExportError: it does not take these inputs.
        """
        names = [each.name for each in self.session.get_inputs()]
        try:
            feed = {name: each.detach().cpu().numpy() for name, each in zip(names, inputs.tensors, strict=True)}
            return [torch.from_numpy(array) for array in self.session.run(None, feed)]
        except Exception as error:  # as above
            raise ExportError(f"{self.path.name} does not run under onnxruntime: {whole_reason(error)}") from error


def refuse_other_files(model: onnx.ModelProto) -> None:
    """Refuse a model with weights in other files: it would choose which files are opened.

    Raises:
        ValueError: it has such weights.
    """
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if onnx.external_data_helper.uses_external_data(tensor):
            raise ValueError(f"the weights {tensor.name!r:.60} are in another file")
