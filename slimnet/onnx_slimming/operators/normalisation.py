"""Operators that normalise, and matrix products whose factors are no constants."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from slimnet.onnx_slimming.node_values import NotSupportedError, Settings, Value, tensor

Operator = Callable[..., Any]


def batch_norm(settings: Settings, x: Value, scale: Value, shift: Value, mean: Value, variance: Value) -> torch.Tensor:
    """BatchNormalization whose vectors are computed."""
    if settings.get("training_mode", 0) or settings.outputs > 1:
        raise NotSupportedError("statistics of a batch")
    vectors = (tensor(mean), tensor(variance), tensor(scale), tensor(shift))
    return functional.batch_norm(tensor(x), *vectors, eps=settings.get("epsilon", 1e-5))


def instance_norm(settings: Settings, x: Value, scale: Value, shift: Value) -> torch.Tensor:
    """InstanceNormalization."""
    return functional.instance_norm(
        tensor(x), weight=tensor(scale), bias=tensor(shift), eps=settings.get("epsilon", 1e-5)
    )


def layer_norm(settings: Settings, x: Value, scale: Value, shift: Value = None) -> torch.Tensor:
    """LayerNormalization, without the statistics as outputs."""
    if settings.outputs > 1:
        raise NotSupportedError("statistics as outputs")
    given, gamma = tensor(x), tensor(scale)
    sizes = given.shape[settings.get("axis", -1) :]
    beta = None if shift is None else tensor(shift)
    return functional.layer_norm(given, sizes, gamma.reshape(sizes), beta, settings.get("epsilon", 1e-5))


def group_norm(settings: Settings, x: Value, scale: Value, shift: Value) -> torch.Tensor:
    """GroupNormalization with a scale for each channel, as from opset 21 on."""
    given, gamma = tensor(x), tensor(scale)
    if gamma.numel() != given.shape[1]:
        raise NotSupportedError("one scale for each group")
    return functional.group_norm(given, settings.get("num_groups"), gamma, tensor(shift), settings.get("epsilon", 1e-5))


def soft_max(function: Callable[..., torch.Tensor]) -> Operator:
    """Softmax and LogSoftmax along one axis, as from opset 13 on; before it is exact along the last axis alone."""

    def run(settings: Settings, x: Value) -> torch.Tensor:
        given = tensor(x)
        axis = settings.get("axis", -1 if settings.get(OPSET, 13) >= 13 else 1)
        if settings.get(OPSET, 13) < 13 and axis % given.ndim != given.ndim - 1:
            raise NotSupportedError("several axes together")
        return function(given, dim=axis)

    return run


OPSET = "__opset__"
"""Under this name the settings of every node have the version of the operator set."""


def power_norm(settings: Settings, x: Value) -> torch.Tensor:
    """LpNormalization."""
    return functional.normalize(tensor(x), settings.get("p", 2), settings.get("axis", -1), 0.0)


def local_response(settings: Settings, x: Value) -> torch.Tensor:
    """LRN over channels."""
    size = settings.get("size")
    if size % 2 == 0:
        raise NotSupportedError("an even size")
    alpha, beta, bias = settings.get("alpha", 1e-4), settings.get("beta", 0.75), settings.get("bias", 1.0)
    return functional.local_response_norm(tensor(x), size, alpha, beta, bias)


def matrix_product(settings: Settings, left: Value, right: Value) -> torch.Tensor:
    """MatMul of two tensors."""
    return torch.matmul(tensor(left), tensor(right))


def general_product(settings: Settings, left: Value, right: Value, shift: Value = None) -> torch.Tensor:
    """Gemm with any settings."""
    first, second = tensor(left), tensor(right)
    first = first.t() if settings.get("transA", 0) else first
    second = second.t() if settings.get("transB", 0) else second
    alpha, beta = settings.get("alpha", 1.0), settings.get("beta", 1.0)
    result = first @ second
    result = result if alpha == 1 else result * alpha
    if shift is None:
        return result
    return result + (tensor(shift) if beta == 1 else tensor(shift) * beta)


NORMALISATION: dict[str, Operator] = {
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "Softmax": soft_max(functional.softmax),
    "LogSoftmax": soft_max(functional.log_softmax),
    "LpNormalization": power_norm,
    "LRN": local_response,
    "MatMul": matrix_product,
    "Gemm": general_product,
}
