"""Precision of products and sums: float32 that is exact or rounded to TF32, and double where a device has it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from slimnet.torch_state.process_patch import ProcessSetting


@contextmanager
def float32_products(*, tf32: bool) -> Iterator[None]:
    """Multiply float32 as float32, or with factors rounded to 10 bits of mantissa, while the context lasts.

    A GPU's convolutions do the latter unless they are set otherwise, which moves outputs by about 1e-3. The setting is
    that of the process: where one thread wants the exact products, all have them. Autocast of the caller is off.
    """
    with _PRODUCTS.set_to(tf32), autocast_off():
        yield


AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def autocast_off() -> Iterator[None]:
    """Compute in the types of the tensors, whatever autocast the caller is in; a network may turn on its own."""
    with ExitStack() as stack:
        for device in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


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
