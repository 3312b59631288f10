"""Sessions of onnxruntime, and their inputs."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch

from slimnet.errors import UsageError, reason
from slimnet.export.onnx_file import read_onnx
from slimnet.modules.example_inputs import Inputs
from slimnet.storage.files import open_file

CUDA_PROVIDER = "CUDAExecutionProvider"
SPIN_ONLY_WHILE_RUNNING = ("session.force_spinning_stop", "1")
DENORMALS_ARE_ZERO = ("session.set_denormal_as_zero", "1")


def feeds_of(session: onnxruntime.InferenceSession, path: Path, inputs: Inputs) -> dict[str, np.ndarray]:
    """The inputs by their names in an ONNX file.

    Raises:
        UsageError: the file has another number of inputs.
    """
    names = [value.name for value in session.get_inputs()]
    if len(names) != len(inputs.tensors):
        raise UsageError(f"{path} takes {len(names)} inputs but {len(inputs.tensors)} given; pass one for each")
    return {name: tensor.cpu().numpy() for name, tensor in zip(names, inputs.tensors, strict=True)}


def onnx_session(
    path: Path, threads: int, device: str = "cpu", profile: Path | None = None
) -> onnxruntime.InferenceSession:
    """A session of an ONNX file; `profile` is the prefix of the files of its profile.

    Raises:
        UsageError: onnxruntime rejects it, or does not run on this device.
    """
    read_onnx(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Otherwise the idle threads of one contender would still spin while another one is timed.
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
    except Exception as error:  # onnxruntime's errors have no common base
        raise UsageError(f"onnxruntime cannot load {path}: {reason(error)}") from error
    if device != "cpu" and session.get_providers()[0] != CUDA_PROVIDER:
        raise UsageError(f"onnxruntime's {CUDA_PROVIDER} does not start here; leave onnxruntime out, or use the CPU")
    return session
