"""Sessions of onnxruntime, and the inputs that they take."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch

from slimnet.benchmark.counts import read_onnx
from slimnet.errors import UsageError, reason
from slimnet.modules.example_inputs import Inputs
from slimnet.storage.files import open_file

CUDA_PROVIDER = "CUDAExecutionProvider"
SPIN_ONLY_WHILE_RUNNING = ("session.force_spinning_stop", "1")
DENORMALS_ARE_ZERO = ("session.set_denormal_as_zero", "1")


def feeds_of(session: onnxruntime.InferenceSession, path: Path, inputs: Inputs) -> dict[str, np.ndarray]:
    """The inputs by the names that an ONNX file gives them.

    Raises:
        UsageError: it takes another number of them.
    """
    names = [value.name for value in session.get_inputs()]
    if len(names) != len(inputs.tensors):
        raise UsageError(f"{path} takes {len(names)} inputs but {len(inputs.tensors)} given; pass one for each")
    return {name: tensor.cpu().numpy() for name, tensor in zip(names, inputs.tensors, strict=True)}


def onnx_session(
    path: Path, threads: int, device: str = "cpu", profile: Path | None = None
) -> onnxruntime.InferenceSession:
    """An ONNX file ready to run; with `profile`, the name with which the files of its profile begin.

    Raises:
        UsageError: onnxruntime does not take it, or not on this device.
    """
    read_onnx(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Else one contender's idle threads would still spin while the other is timed.
    options.add_session_config_entry(*SPIN_ONLY_WHILE_RUNNING)
    options.add_session_config_entry(*DENORMALS_ARE_ZERO)
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    providers: list[object] = ["CPUExecutionProvider"]
    if device != "cpu":
        providers.insert(0, (CUDA_PROVIDER, {"device_id": str(torch.device(device).index or 0)}))
    try:
        with open_file(path):
            session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no type in common
        raise UsageError(f"onnxruntime cannot load {path}: {reason(error)}") from error
    if device != "cpu" and session.get_providers()[0] != CUDA_PROVIDER:
        raise UsageError(f"onnxruntime's {CUDA_PROVIDER} does not start here; leave onnxruntime out, or use the CPU")
    return session
