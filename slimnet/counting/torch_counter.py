"""The multiply-accumulates of layers by torch's counter, which counts operations during a forward."""

import torch
from torch.utils.flop_counter import FlopCounterMode

FLOPS_PER_MAC = 2
COUNTED = {
    "conv": (torch.ops.aten.convolution, torch.ops.aten._convolution),
    "linear": (torch.ops.aten.mm, torch.ops.aten.addmm),
}
"""The ATen operators that are counted, with the kind of layer."""


def counted(counter: FlopCounterMode) -> dict[str, int]:
    """The multiply-accumulates in a counter, by kind of layer."""
    flops = counter.get_flop_counts().get("Global", {})
    return {kind: sum(int(flops.get(op, 0)) for op in ops) // FLOPS_PER_MAC for kind, ops in COUNTED.items()}
