"""The sizes of the tensors of a forward, determined without computing it."""

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from slimnet.errors import BundleError
from slimnet.export.capture import with_batch
from slimnet.modules.copying import skeleton
from slimnet.modules.example_inputs import Inputs
from slimnet.modules.network import Network
from slimnet.torch_state.eager_mode import EagerMode

LIMIT_ACTIVATION = 1 << 28
"""The largest number of elements of one tensor of the forward: a GiB in float32."""

LIMIT_UNKNOWN = 1 << 22
"""The largest number of elements of an example if the forward is not known: a colour image of 1,180 × 1,180 pixels."""


class LargestTensor(EagerMode):
    """Records, in its context, the number of elements of the largest tensor that an op returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an op and record the size of its outputs."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return result


def check_activations(module: nn.Module | None, inputs: Inputs, batch: int, where: str) -> None:
    """Refuse inputs from a file with which the forward of `module` on `batch` examples would take gigabytes.

    The forward runs on meta tensors, which have shapes but no memory. If it cannot, or if there is no module, the
    inputs themselves must be small.

    Raises:
        BundleError: naming their size.
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
            "network is not known; name the network with model=, or save it again with smaller example inputs"
        )


def _largest(module: nn.Module, inputs: Inputs) -> int | None:
    """The number of elements of the largest tensor of a forward; None if it cannot run on meta tensors."""
    hollow = skeleton(Network.of(module)).module.eval()
    try:
        with torch.no_grad(), LargestTensor() as seen:
            inputs.call_directly(hollow)
    # A forward may raise anything on meta tensors.
    except Exception:
        return None
    return seen.elements


def _to_meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("meta")
