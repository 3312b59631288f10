"""Example inputs as data: shapes, types and ranges without the numbers, and random inputs made from them."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from slimnet.errors import BundleError
from slimnet.inputs import Inputs

LIMIT_ELEMENTS = 2**28
"""The largest input that is made from a specification; a file from elsewhere could ask for any size."""


def describe_inputs(inputs: Inputs) -> dict[str, Any]:
    """What `random_inputs` needs to make inputs of the same kind, as JSON data.

    Raises:
        BundleError: an argument is neither a tensor nor something that JSON can hold.
    """
    return {"args": _described(inputs.args), "kwargs": _described(inputs.kwargs)}


def random_inputs(spec: Mapping[str, Any], seed: int) -> Inputs:
    """Inputs of the recorded shapes: standard normal numbers, integers of the recorded range.

    Raises:
        BundleError: the specification is not one.
    """
    generator = torch.Generator().manual_seed(seed)
    try:
        args, kwargs = _made(spec["args"], generator), _made(spec["kwargs"], generator)
        inputs = Inputs(args, kwargs)
        if not (isinstance(args, tuple) and isinstance(kwargs, dict) and inputs.tensors):
            raise ValueError("it holds no tensors")
    except (KeyError, TypeError, ValueError, RuntimeError, RecursionError, AttributeError) as error:
        raise BundleError(
            "the recorded example inputs are not a description of inputs; save the bundle again"
        ) from error
    return inputs


def _described(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _described_tensor(value)
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_described(item) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _described(item) for key, item in value.items()}}
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return {"value": value}
    raise BundleError(
        f"an example input is a {type(value).__name__}, which a bundle cannot record; pass tensors, numbers or text"
    )


def _described_tensor(tensor: torch.Tensor) -> dict[str, Any]:
    spec: dict[str, Any] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    if not tensor.is_floating_point() and tensor.numel():
        spec |= {"low": int(tensor.min()), "high": int(tensor.max())}
    return {"tensor": spec}


def _made(spec: Any, generator: torch.Generator) -> Any:
    (kind, content), *rest = spec.items()
    if rest:
        raise ValueError("two kinds in one entry")
    match kind:
        case "tensor":
            return _made_tensor(content, generator)
        case "tuple" | "list":
            items = [_made(item, generator) for item in content]
            return tuple(items) if kind == "tuple" else items
        case "dict":
            return {str(key): _made(item, generator) for key, item in content.items()}
        case "value":
            return content
    raise ValueError(f"unknown kind {kind!r}")


def _made_tensor(spec: Mapping[str, Any], generator: torch.Generator) -> torch.Tensor:
    dtype = getattr(torch, spec["dtype"])
    shape = [int(size) for size in spec["shape"]]
    if not isinstance(dtype, torch.dtype) or min(shape, default=0) < 0 or math.prod(shape) > LIMIT_ELEMENTS:
        raise ValueError("no such tensor")
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    low, high = int(spec.get("low", 0)), int(spec.get("high", 0))
    return torch.randint(low, high + 1, shape, generator=generator).to(dtype)
