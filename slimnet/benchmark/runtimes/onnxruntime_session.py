"""Sessions of onnxruntime, and their inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from slimnet.errors import UsageError, reason
from slimnet.export.onnx_file import read_onnx
from slimnet.modules.example_inputs import Inputs
from slimnet.storage.files import open_file

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
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


def providers_for(device: str, provider: str, available: Sequence[str]) -> list[Any]:
    """The providers of a session, the preferred one first: on a GPU `provider`, behind it CUDA for what it has not."""
    if device == "cpu":
        return [CPU_PROVIDER]
    options = {"device_id": str(torch.device(device).index or 0)}
    on_gpu = [name for name in dict.fromkeys((provider, CUDA_PROVIDER)) if name == provider or name in available]
    return [*((name, options) for name in on_gpu), CPU_PROVIDER]


def onnx_session(
    path: Path, threads: int, device: str = "cpu", profile: Path | None = None, provider: str = CUDA_PROVIDER
) -> onnxruntime.InferenceSession:
    """A session of an ONNX file; `profile` is the prefix of the files of its profile, `provider` the one on a GPU.

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
    providers = providers_for(device, provider, onnxruntime.get_available_providers())
    try:
        with open_file(path):
            session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no common base
        raise UsageError(f"onnxruntime cannot load {path}: {reason(error)}") from error
    if device != "cpu" and session.get_providers()[0] != provider:
        name = "tensorrt" if provider == TENSORRT_PROVIDER else "onnxruntime"
        raise UsageError(f"onnxruntime's {provider} does not start here; leave {name} out, or use the CPU")
    return session
