"""Example inputs as data: shapes, types and ranges without values, and random inputs generated from them."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from slimnet.errors import BundleError
from slimnet.modules.example_inputs import Inputs
from slimnet.storage.folder_names import REMAKE

LIMIT_ELEMENTS = 2**26
"""The largest number of elements of all inputs of a specification, which may come from an untrusted file."""

LIMIT_AXES = 64
"""The largest number of axes of an input: the limit of torch's iterators."""


def describe_inputs(inputs: Inputs) -> dict[str, Any]:
    """A specification of inputs for `random_inputs`, as JSON data.

    Raises:
        BundleError: an argument is neither a tensor nor a JSON value, or the inputs are too large.
    """
    count = sum(tensor.numel() for tensor in inputs.tensors)
    if count > LIMIT_ELEMENTS:
        raise BundleError(
            f"the example inputs are too large, {count:,} numbers of at most {LIMIT_ELEMENTS:,}; pass fewer examples"
        )
    return {"args": _described(inputs.args), "kwargs": _described(inputs.kwargs)}


def random_inputs(spec: Mapping[str, Any], seed: int) -> Inputs:
    """Inputs of the recorded shapes: standard normal numbers, and integers of the recorded range.

    Raises:
        BundleError: the specification is invalid.
    """
    generator = torch.Generator().manual_seed(seed)
    try:
        if (
            sum(math.prod(_shape(each)) for part in ("args", "kwargs") for each in _tensors(spec[part]))
            > LIMIT_ELEMENTS
        ):
            raise ValueError("they are too large")
        args, kwargs = _made(spec["args"], generator), _made(spec["kwargs"], generator)
        inputs = Inputs(args, kwargs)
        if not (isinstance(args, tuple) and isinstance(kwargs, dict) and inputs.tensors):
            raise ValueError("it holds no tensors")
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
        raise BundleError(f"the recorded example inputs are not a description of inputs; {REMAKE}") from error
    return inputs


def _described(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _described_tensor(value)
    if type(value) in (tuple, list):
        return {type(value).__name__: [_described(item) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        described = {key: _described(item) for key, item in value.items()}
        # JSON objects are written in alphabetical order, but the inputs of an exported network have an order.
        return {"dict": described} if list(value) == sorted(value) else {"items": list(map(list, described.items()))}
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return {"value": value}
    raise BundleError(
        f"an example input is a {type(value).__name__}, which a bundle cannot record; pass tensors, numbers or text"
    )


def _described_tensor(tensor: torch.Tensor) -> dict[str, Any]:
    spec: dict[str, Any] = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    if _is_integer(tensor.dtype) and tensor.numel():
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
        case "dict" | "items":
            return {str(key): _made(item, generator) for key, item in _pairs(kind, content)}
        case "value":
            return content
    raise ValueError(f"unknown kind {kind!r}")


def _made_tensor(spec: Mapping[str, Any], generator: torch.Generator) -> torch.Tensor:
    dtype, shape = getattr(torch, spec["dtype"]), _shape(spec)
    if not isinstance(dtype, torch.dtype):
        raise ValueError("no such type")
    if not _is_integer(dtype):
        drawn = torch.complex64 if dtype.is_complex else torch.float32
        return torch.randn(shape, generator=generator, dtype=drawn, device="cpu").to(dtype)
    low, high = int(spec.get("low", 0)), int(spec.get("high", 0))
    least, most = (0, 1) if dtype is torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    if not least <= low <= high <= most:
        raise ValueError("no such range")
    span = min(high - low + 1, torch.iinfo(torch.int64).max)
    return (torch.randint(span, shape, generator=generator, device="cpu") + low).to(dtype)


def _is_integer(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex)


def _tensors(spec: Any) -> Iterator[Any]:
    """The specifications of the tensors in a nested specification."""
    for kind, content in spec.items():
        if kind == "tensor":
            yield content
        elif kind in ("dict", "items"):
            for _, item in _pairs(kind, content):
                yield from _tensors(item)
        elif kind != "value":
            for item in content:
                yield from _tensors(item)


def _pairs(kind: str, content: Any) -> list[tuple[Any, Any]]:
    """The keys of a dict with what they stand for: in alphabetical order, or in an order of its own as "items"."""
    return [(key, item) for key, item in (content.items() if kind == "dict" else content)]


def _shape(spec: Mapping[str, Any]) -> list[int]:
    shape = [int(size) for size in spec["shape"]]
    if min(shape, default=0) < 0 or len(shape) > LIMIT_AXES:
        raise ValueError("no such shape")
    return shape
