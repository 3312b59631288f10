"""Where networks are, and how their device rounds: what a measurement must find as it expects, and leave as it was."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from slimnet.errors import UsageError
from slimnet.process_patch import ProcessPatch, ProcessSetting, attribute_patch


def device_of(model: nn.Module) -> torch.device:
    """Where a network's parameters are."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def real_by_default() -> AbstractContextManager[object]:
    """While the context lasts, tensors are made on the CPU where they would have been made without memory, on meta."""
    return torch.device("cpu") if torch.get_default_device().type == "meta" else nullcontext()


def usable(device: torch.device | str) -> torch.device:
    """A device that is there and computes.

    Raises:
        UsageError: it is not, or it does not.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        gpus = f"torch {torch.__version__} finds {torch.cuda.device_count() or 'no'} GPUs"
        raise UsageError(f"there is no device {str(device)!r} here, where {gpus}; use cpu") from error
    return torch.device("cpu") if found.type == "cpu" else found


def float32_products(*, tf32: bool) -> AbstractContextManager[None]:
    """Multiply float32 as float32, or with factors rounded to 10 bits of mantissa, while the context lasts.

    A GPU's convolutions do the latter unless they are set otherwise, which moves outputs by about 1e-3. The setting is
    that of the process: where one thread wants the exact products, all have them.
    """
    return _PRODUCTS.set_to(tf32)


def _multiplying() -> tuple[Any, ...]:
    """The settings of everything that multiplies float32."""
    backends: Any = torch.backends
    gpu = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    return (*gpu, backends.mkldnn.matmul, backends.mkldnn.conv)


def _precisions() -> list[str]:
    return [each.fp32_precision for each in _multiplying()]


def _multiply(tf32: bool) -> None:
    older_names(matmul=tf32, cudnn=tf32)
    for each in _multiplying():
        each.fp32_precision = "tf32" if tf32 else "ieee"


def _multiply_as(before: list[str]) -> None:
    older_names(matmul=before[0] == "tf32", cudnn=before[1] == "tf32")
    for each, precision in zip(_multiplying(), before, strict=True):
        each.fp32_precision = precision


_PRODUCTS = ProcessSetting(_precisions, _multiply, _multiply_as, prefer=all)


def older_names(*, matmul: bool, cudnn: bool) -> None:
    """Say it by the names by which networks and parts of torch ask, which raise where only the newer ones were used."""
    torch.set_float32_matmul_precision("high" if matmul else "highest")
    torch.backends.cudnn.allow_tf32 = cudnn


def together(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors in one place: that of the first which is not on the CPU."""
    place = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), torch.device("cpu"))
    return [tensor.to(place) for tensor in tensors]


def in_double(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in double precision: where it is, or on the CPU where its device has none, as Apple's GPUs."""
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    try:
        return tensor.to(wide)
    except TypeError:
        return tensor.cpu().to(wide)


def double_sum(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """A sum in double precision, as `in_double`, without a copy of all numbers."""
    try:
        return tensor.sum(axis, dtype=torch.float64)
    except TypeError:
        return tensor.cpu().sum(axis, dtype=torch.float64)


Numbers = np.ndarray | torch.Tensor
"""A tensor's numbers, as an array where NumPy can look at them where they are: its calls cost a third of torch's."""

NUMPY_TYPES = frozenset([torch.float32, torch.float64])


def numbers(tensor: torch.Tensor) -> Numbers:
    """The numbers of a tensor, not copied; with both kinds of them the same can be done in many ways."""
    return tensor.numpy(force=True) if tensor.is_cpu and tensor.dtype in NUMPY_TYPES else tensor.detach()


def as_array(found: Numbers) -> np.ndarray:
    """What was found out about some numbers, on the CPU."""
    return found if isinstance(found, np.ndarray) else found.numpy(force=True)


def uncompiled() -> AbstractContextManager[object]:
    """While the context lasts, what `torch.compile` made runs as it was written."""
    # Without torch._dynamo nothing has been compiled, and importing it takes seconds.
    return _EAGER if "torch._dynamo" in sys.modules else nullcontext()


def fastest_kernels() -> AbstractContextManager[None]:
    """Let cuDNN try its kernels on every new shape and keep to the fastest, while the context lasts."""
    # Not `cudnn.flags`, which switches off what it is not given, cuDNN itself included.
    return _FASTEST


_EAGER = ProcessPatch(
    lambda: torch.compiler.set_stance("force_eager"),
    lambda stance: stance.__exit__(None, None, None),
)
_FASTEST = attribute_patch(torch.backends.cudnn, "benchmark", lambda _: True)
