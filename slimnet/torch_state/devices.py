"""Where networks are, and how their device rounds: what a measurement must find as it expects, and leave as it was."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from slimnet.errors import UsageError
from slimnet.torch_state.process_patch import ProcessPatch, attribute_patch


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


def to_common_device(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors in one place: that of the first which is not on the CPU."""
    place = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), torch.device("cpu"))
    return [tensor.to(place) for tensor in tensors]


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
