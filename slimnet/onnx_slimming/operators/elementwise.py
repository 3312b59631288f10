"""Operators that act on each element alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from slimnet.onnx_slimming.node_values import NotSupportedError, Settings, Value, at, number, operand, tensor

Operator = Callable[..., Any]


def unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    """An operator of one tensor without settings."""
    return lambda settings, x: function(tensor(x))


def binary(function: Callable[[Any, Any], torch.Tensor]) -> Operator:
    """An operator of two tensors that broadcast."""

    def run(settings: Settings, left: Value, right: Value) -> torch.Tensor:
        first, second = operand(left, right), operand(right, left)
        if not isinstance(first, torch.Tensor) and not isinstance(second, torch.Tensor):
            first = tensor(left)
        return function(first, second)

    return run


def folded(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operator:
    """An operator of any number of tensors that broadcast, two at a time."""

    def run(settings: Settings, *values: Value) -> torch.Tensor:
        result = tensor(values[0])
        for value in values[1:]:
            result = function(result, tensor(value))
        return result

    return run


def mean(settings: Settings, *values: Value) -> torch.Tensor:
    """Mean: of any number of tensors, element by element."""
    return folded(torch.add)(settings, *values) / len(values)


def divide(left: Any, right: Any) -> torch.Tensor:
    """Div: of whole numbers rounded towards zero."""
    whole = all(isinstance(each, int) or getattr(each, "dtype", None) in WHOLE for each in (left, right))
    return torch.div(left, right, rounding_mode="trunc") if whole else torch.div(left, right)


WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def modulo(settings: Settings, left: Value, right: Value) -> torch.Tensor:
    """Mod: with the sign of the divisor, or of the dividend with fmod."""
    return (torch.fmod if settings.get("fmod", 0) else torch.remainder)(tensor(left), tensor(right))


def leaky_relu(settings: Settings, x: Value) -> torch.Tensor:
    """LeakyRelu."""
    return functional.leaky_relu(tensor(x), settings.get("alpha", 0.01))


def parametric_relu(settings: Settings, x: Value, slope: Value) -> torch.Tensor:
    """PRelu: with one slope, or one for each channel."""
    given, slopes = tensor(x), tensor(slope)
    channels = given.shape[1] if given.ndim > 1 else 1
    if slopes.numel() == 1 or slopes.shape == (channels, *[1] * (given.ndim - 2)):
        return functional.prelu(given, slopes.reshape(-1))
    return torch.where(given < 0, given * slopes, given)


def elu(settings: Settings, x: Value) -> torch.Tensor:
    """Elu."""
    return functional.elu(tensor(x), settings.get("alpha", 1.0))


def celu(settings: Settings, x: Value) -> torch.Tensor:
    """Celu."""
    return functional.celu(tensor(x), settings.get("alpha", 1.0))


def selu(settings: Settings, x: Value) -> torch.Tensor:
    """Selu, with its usual numbers."""
    if abs(settings.get("alpha", 1.67326) - 1.67326) > 1e-4 or abs(settings.get("gamma", 1.0507) - 1.0507) > 1e-4:
        raise NotSupportedError("other numbers than the usual ones")
    return functional.selu(tensor(x))


def hard_sigmoid(settings: Settings, x: Value) -> torch.Tensor:
    """HardSigmoid: a line, cut off at 0 and 1."""
    slope, shift = settings.get("alpha", 0.2), settings.get("beta", 0.5)
    if abs(slope - 1 / 6) < 1e-6 and shift == 0.5:
        return functional.hardsigmoid(tensor(x))
    return torch.clamp(tensor(x) * slope + shift, 0.0, 1.0)


def thresholded_relu(settings: Settings, x: Value) -> torch.Tensor:
    """ThresholdedRelu."""
    return functional.threshold(tensor(x), settings.get("alpha", 1.0), 0.0)


def gelu(settings: Settings, x: Value) -> torch.Tensor:
    """Gelu, exact or with tanh."""
    return functional.gelu(tensor(x), approximate=settings.get("approximate", "none"))


def swish(settings: Settings, x: Value) -> torch.Tensor:
    """Swish: x · sigmoid(α x)."""
    alpha = settings.get("alpha", 1.0)
    given = tensor(x)
    return functional.silu(given) if alpha == 1 else given * torch.sigmoid(given * alpha)


def clip(settings: Settings, x: Value, *limits: Value) -> torch.Tensor:
    """Clip: the limits are attributes in older operator sets, and inputs in later ones."""
    least = number(at(limits, 0), settings.get("min"))
    most = number(at(limits, 1), settings.get("max"))
    given = tensor(x)
    if least is None and most is None:
        return given.clone()
    if least == 0 and most is None:
        return functional.relu(given)
    return functional.relu6(given) if (least, most) == (0, 6) else torch.clamp(given, least, most)


def where(settings: Settings, condition: Value, left: Value, right: Value) -> torch.Tensor:
    """Where."""
    return torch.where(tensor(condition), tensor(left), tensor(right))


def cast(settings: Settings, x: Value) -> torch.Tensor:
    """Cast."""
    return tensor(x).to(torch_type(settings.get("to")))


def cast_like(settings: Settings, x: Value, like: Value) -> torch.Tensor:
    """CastLike."""
    return tensor(x).to(tensor(like).dtype)


def torch_type(number: int) -> torch.dtype:
    """The type of torch for a number of ONNX's enumeration."""
    from onnx.helper import tensor_dtype_to_np_dtype

    try:
        return torch.from_numpy(np.zeros(1, dtype=tensor_dtype_to_np_dtype(number))).dtype
    except (TypeError, KeyError) as error:
        raise NotSupportedError(f"type {number}") from error


def same(settings: Settings, x: Value, *rest: Value) -> Value:
    """Identity, and Dropout of a network that is not trained."""
    if settings.outputs > 1:
        raise NotSupportedError("the mask of a dropout")
    return x


ELEMENTWISE: dict[str, Operator] = {
    "Relu": unary(functional.relu),
    "Sigmoid": unary(torch.sigmoid),
    "Tanh": unary(torch.tanh),
    "Exp": unary(torch.exp),
    "Log": unary(torch.log),
    "Sqrt": unary(torch.sqrt),
    "Neg": unary(torch.neg),
    "Abs": unary(torch.abs),
    "Erf": unary(torch.erf),
    "Floor": unary(torch.floor),
    "Ceil": unary(torch.ceil),
    "Round": unary(torch.round),
    "Sign": unary(torch.sign),
    "Sin": unary(torch.sin),
    "Cos": unary(torch.cos),
    "Reciprocal": unary(torch.reciprocal),
    "Softplus": unary(functional.softplus),
    "Softsign": unary(functional.softsign),
    "HardSwish": unary(functional.hardswish),
    "Mish": unary(functional.mish),
    "Not": unary(torch.logical_not),
    "Add": binary(torch.add),
    "Sub": binary(torch.sub),
    "Mul": binary(torch.mul),
    "Div": binary(divide),
    "Pow": binary(torch.pow),
    "Equal": binary(torch.eq),
    "Greater": binary(torch.gt),
    "GreaterOrEqual": binary(torch.ge),
    "Less": binary(torch.lt),
    "LessOrEqual": binary(torch.le),
    "And": folded(torch.logical_and),
    "Or": folded(torch.logical_or),
    "Xor": folded(torch.logical_xor),
    "Min": folded(torch.minimum),
    "Max": folded(torch.maximum),
    "Sum": folded(torch.add),
    "Mean": mean,
    "Mod": modulo,
    "LeakyRelu": leaky_relu,
    "PRelu": parametric_relu,
    "Elu": elu,
    "Celu": celu,
    "Selu": selu,
    "HardSigmoid": hard_sigmoid,
    "ThresholdedRelu": thresholded_relu,
    "Gelu": gelu,
    "Swish": swish,
    "Clip": clip,
    "Where": where,
    "Cast": cast,
    "CastLike": cast_like,
    "Identity": same,
    "Dropout": same,
}
