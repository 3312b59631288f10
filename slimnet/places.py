"""Where networks are, and how their device rounds: what a measurement must find as it expects, and leave as it was."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from slimnet.errors import UsageError


def device_of(model: nn.Module) -> torch.device:
    """Where a network's parameters are."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


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


def random_number_states(devices: Iterable[torch.device]) -> list[torch.Tensor]:
    """The states of the random numbers of the CPU, and then of those of the devices that have some of their own."""
    drawing = with_random_numbers(devices)
    return [torch.get_rng_state(), *(torch.get_device_module(each).get_rng_state(each) for each in drawing)]


def set_random_numbers(states: Sequence[torch.Tensor], devices: Iterable[torch.device]) -> None:
    """Go on from states that `random_number_states` gave; those of another kind of device are left out."""
    torch.set_rng_state(states[0])
    for each, state in zip(with_random_numbers(devices), states[1:], strict=False):
        module = torch.get_device_module(each)
        if module.get_rng_state(each).shape == state.shape:
            module.set_rng_state(state, each)


def with_random_numbers(devices: Iterable[torch.device]) -> list[torch.device]:
    """Those of some devices that draw random numbers of their own; Apple's keep theirs out of torch's reach."""
    return [each for each in dict.fromkeys(devices) if each.type not in ("cpu", "meta", "mps")]


@contextmanager
def random_numbers_back(devices: Iterable[torch.device]) -> Iterator[None]:
    """Give the random numbers back that are drawn while the context lasts, those of the devices as well."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([]))
        for each in with_random_numbers(devices):
            stack.enter_context(torch.random.fork_rng([each], device_type=each.type))
        yield


def random_numbers_kept(model: nn.Module) -> AbstractContextManager[None]:
    """Give the random numbers back that a forward of the network draws, on its devices as well."""
    return random_numbers_back(tensor.device for tensor in (*model.parameters(), *model.buffers()))


@contextmanager
def float32_products(*, tf32: bool) -> Iterator[None]:
    """Multiply float32 as float32, or with factors rounded to 10 bits of mantissa, while the context lasts.

    A GPU's convolutions do the latter unless they are told otherwise, which moves outputs by about 1e-3.
    """
    backends: Any = torch.backends
    gpu = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    products = (*gpu, backends.mkldnn.matmul, backends.mkldnn.conv)
    before = [each.fp32_precision for each in products]
    older_names(matmul=tf32, cudnn=tf32)
    for each in products:
        each.fp32_precision = "tf32" if tf32 else "ieee"
    try:
        yield
    finally:
        older_names(matmul=before[0] == "tf32", cudnn=before[1] == "tf32")
        for each, precision in zip(products, before, strict=True):
            each.fp32_precision = precision


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
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def fastest_kernels() -> Iterator[None]:
    """Let cuDNN try its kernels on every new shape and keep to the fastest, while the context lasts."""
    cudnn = torch.backends.cudnn
    # Not `cudnn.flags`, which switches off what it is not told of, cuDNN itself included.
    before, cudnn.benchmark = cudnn.benchmark, True
    try:
        yield
    finally:
        cudnn.benchmark = before
