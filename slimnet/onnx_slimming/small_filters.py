"""Filters that are zero but for rounding, as a BatchNorm with a tiny γ leaves them when it is folded into its layer."""

import torch
from torch import nn

from slimnet.onnx_slimming.graph_module import OnnxGraph, module_at
from slimnet.onnx_slimming.layers import FramedConvolution

LIMIT = 1e-6
"""A filter whose largest weight is at most so much of its layer's largest is taken for zero."""

NORMALISING = (
    "BatchNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "LpNormalization",
)
"""Operators behind which a filter counts as much as any other, however small its weights are."""


def zero_small_filters(module: OnnxGraph) -> None:
    """Set to zero, in the module alone, filters that are zero but for rounding."""
    read_by: dict[str, list[str]] = {}
    for step in module.program.steps:
        for name in step.inputs:
            read_by.setdefault(name, []).append(module.program.sources[step.path].kind)
    seen: set[int] = set()
    for step in module.program.steps:
        layer = module_at(module, step.path)
        if not isinstance(layer, FramedConvolution | nn.Linear) or id(layer.weight) in seen:
            continue
        seen.add(id(layer.weight))
        if not any(kind in NORMALISING for kind in read_by.get(step.outputs[0], ())):
            zero_small(layer.weight)


def zero_small(weight: torch.Tensor) -> None:
    """Set the small filters of a weight `(O, ...)` to zero."""
    with torch.no_grad():
        largest = weight.abs().flatten(1).amax(1)
        small = (largest <= LIMIT * largest.max()) & (largest > 0)
        weight[small] = 0.0
