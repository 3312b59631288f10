"""Settings that make steps faster; they are no part of a recipe, since they change results by rounding at most."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from slimnet.errors import SlimnetError, UsageError, reason
from slimnet.torch_state.devices import fastest_kernels
from slimnet.torch_state.precision import autocast_off, float32_products
from slimnet.torch_state.process import denormals_flushed, torch_threads


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The use of the machine by a run.

    Attributes:
        threads: threads of the CPU; None keeps torch's number. A small network is fastest on one.
        compiled: let `torch.compile` generate the network's kernels; the first step then takes a minute.
        cuda_graph: replay each step as one captured CUDA graph, which saves the kernel launches of small batches;
            None does so if it is possible (one GPU, and an optimiser that can be captured).
        tf32: let GPUs round the factors of float32 products to 10 bits of mantissa.

    Raises:
        UsageError: the number of threads is below 1.
    """

    threads: int | None = None
    compiled: bool = False
    cuda_graph: bool | None = None
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"{self.threads} threads cannot train; it must be at least 1")


@contextmanager
def training_settings(tuning: Tuning, device: torch.device) -> Iterator[None]:
    """Everything that the steps of a run need around them; what the caller had comes back afterwards.

    Steps do not depend on the context of the caller: `torch.no_grad`, `torch.inference_mode` and autocast end here.

    Raises:
        SlimnetError: the GPU's memory is too small.
        UsageError: the compiler failed.
    """
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        autocast_off(),
        torch_threads(tuning.threads),
        denormals_flushed(),
        gpu_settings(tuning, device),
        compiler_errors_reported(tuning),
    ):
        yield


@contextmanager
def gpu_settings(tuning: Tuning, device: torch.device) -> Iterator[None]:
    """Set TF32 and enable cuDNN's benchmark mode in the context; no effect on CPUs.

    Raises:
        SlimnetError: the GPU's memory is too small.
    """
    if device.type != "cuda":
        yield
        return
    try:
        with current(device), float32_products(tf32=tuning.tf32), fastest_kernels():
            yield
    except torch.OutOfMemoryError as error:
        raise SlimnetError(f"the memory of {device} is too small for this; train with a smaller batch size") from error


def current(device: torch.device) -> AbstractContextManager[Any]:
    """Make a GPU the current device, whose streams are the default, for example in a graph capture."""
    return nullcontext() if device.index is None else torch.cuda.device(device)


@contextmanager
def compiler_errors_reported(tuning: Tuning) -> Iterator[None]:
    """Report a failure of torch.compile in one line.

    Raises:
        UsageError: the compiler failed.
    """
    try:
        yield
    except Exception as error:
        if tuning.compiled and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise UsageError(
                f"torch.compile cannot compile this network here: {reason(error)}; train without it"
            ) from error
        raise
