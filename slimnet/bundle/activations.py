"""How large the tensors of a forward become, found without computing one."""

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slimnet.errors import BundleError
from slimnet.export.capture import with_batch
from slimnet.modules.copying import skeleton
from slimnet.modules.example_inputs import Inputs
from slimnet.modules.network import Network

LIMIT_ACTIVATION = 1 << 28
"""How many numbers one tensor of the forward may have: a GiB in float32."""

LIMIT_UNKNOWN = 1 << 22
"""How many numbers one example may have where the forward cannot be followed: a colour image of 1,180 pixels square."""


class LargestTensor(TorchDispatchMode):
    """While it is entered, remembers how many numbers the largest tensor has that an op returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an op and look at its size."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return result


def check_activations(module: nn.Module | None, inputs: Inputs, batch: int, where: str) -> None:
    """Refuse inputs from a file with which the forward of `module` on `batch` examples would take gigabytes.

    The forward runs on meta tensors, which have shapes and no memory. Where it cannot, or where there is no module,
    the inputs themselves have to be small.

    Raises:
        BundleError: saying how large they are.
    """
    largest = None if module is None else _largest(module, with_batch(inputs.map(_to_meta), batch))
    if largest is not None and largest > LIMIT_ACTIVATION:
        raise BundleError(
            f"{where} is to be checked on inputs with which one tensor has {largest:,} numbers, of at most "
            f"{LIMIT_ACTIVATION:,}; save it again with smaller example inputs"
        )
    example = sum(tensor.numel() for tensor in inputs.tensors) // max(inputs.batch, 1)
    if largest is None and example > LIMIT_UNKNOWN:
        raise BundleError(
            f"{where} is to be checked on inputs of {example:,} numbers, of at most {LIMIT_UNKNOWN:,} where its "
            "network is not known; name the network (--arch), or save it again with smaller example inputs"
        )


def _largest(module: nn.Module, inputs: Inputs) -> int | None:
    """The largest tensor of a forward; None where it cannot run without data."""
    hollow = skeleton(Network.of(module)).module.eval()
    try:
        with torch.no_grad(), LargestTensor() as seen:
            hollow(*inputs.args, **inputs.kwargs)
    # Another's forward may raise anything over tensors without data.
    except Exception:
        return None
    return seen.elements


def _to_meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("meta")
