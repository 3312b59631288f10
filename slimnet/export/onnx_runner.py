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
        self.path, self._limit = path, limit
        try:
            content = read_bytes(path, limit)
            refuse_other_files(onnx.load_model_from_string(content))
            onnx.checker.check_model(content, full_check=True)
            self.session = session_of(content)
        except Exception as error:  # the errors of protobuf, onnx and onnxruntime have no common base
            raise ExportError(f"{path.name} is not an ONNX model that onnxruntime runs: {reason(error)}") from error

    def __call__(self, inputs: Inputs) -> list[torch.Tensor]:
        """Run the model.

        Raises:
            ExportError: it does not take these inputs.
        """
        return self._run(self.session, None, inputs)

    def selections(self, inputs: Inputs) -> list[torch.Tensor]:
        """The indices that each sort of the model selects on these inputs, in the order of its nodes.

        torch's exporter writes every sort as a TopK.

        Raises:
            ExportError: it does not take these inputs.
        """
        model = onnx.load_model_from_string(read_bytes(self.path, self._limit))
        names = expose_selections(model)
        return self._run(session_of(model.SerializeToString()), names, inputs) if names else []

    def _run(
        self, session: onnxruntime.InferenceSession, outputs: list[str] | None, inputs: Inputs
    ) -> list[torch.Tensor]:
        names = [each.name for each in session.get_inputs()]
        try:
            feed = {name: each.detach().cpu().numpy() for name, each in zip(names, inputs.tensors, strict=True)}
            return [torch.from_numpy(array) for array in session.run(outputs, feed)]
        except Exception as error:  # as above
            raise ExportError(f"{self.path.name} does not run under onnxruntime: {whole_reason(error)}") from error


def expose_selections(model: onnx.ModelProto) -> list[str]:
    """Make the indices of every TopK of a model outputs of it; their names, in the order of the nodes."""
    names = []
    outputs = {output.name for output in model.graph.output}
    for node in model.graph.node:
        if node.op_type == "TopK" and len(node.output) == 2 and node.output[1]:
            name = node.output[1]
            names.append(name)
            if name not in outputs:
                model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None))
    return names


def session_of(content: bytes) -> onnxruntime.InferenceSession:
    """A session of a model on the CPU, which prints nothing."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def refuse_other_files(model: onnx.ModelProto) -> None:
    """Refuse a model with weights in other files: it would choose which files are opened.

    Raises:
        ValueError: it has such weights.
    """
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if onnx.external_data_helper.uses_external_data(tensor):
            raise ValueError(f"the weights {tensor.name!r:.60} are in another file")
