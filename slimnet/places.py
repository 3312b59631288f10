"""Where networks are, and how their device rounds: what a measurement must find as it expects, and leave as it was."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn


def device_of(model: nn.Module) -> torch.device:
    """Where a network's parameters are."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def random_numbers_kept(model: nn.Module) -> Iterator[None]:
    """Give the random numbers back that a forward of the network draws, on its GPUs as well."""
    gpus = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(gpus if torch.cuda.is_available() else []):
        yield


@contextmanager
def float32_products(*, tf32: bool) -> Iterator[None]:
    """Multiply float32 as float32, or with factors rounded to 10 bits of mantissa, while the context lasts.

    A GPU's convolutions do the latter unless they are told otherwise, which moves outputs by about 1e-3.
    """
    backends: Any = torch.backends
    gpu = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    products = (*gpu, backends.mkldnn.matmul, backends.mkldnn.conv)
    before = [each.fp32_precision for each in products]
    # Parts of torch, such as its compiler, ask by this name, and raise where only the newer one was used.
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    for each in products:
        each.fp32_precision = "tf32" if tf32 else "ieee"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("high" if before[0] == "tf32" else "highest")
        for each, precision in zip(products, before, strict=True):
            each.fp32_precision = precision


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
