"""What runs through a graph: tensors, which are traced, and numbers known beforehand, such as sizes, as arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from slimnet.errors import SlimnetError

Value = torch.Tensor | np.ndarray | None
"""A tensor that depends on the inputs or on weights, an array of numbers that are known, or an input left out."""


class NotSupportedError(SlimnetError):
    """An operator, or settings of it, for which there is no equivalent here; its node is run as it is."""


class DataDependentError(SlimnetError):
    """A size or a setting that is only known once the network has run."""


def tensor(value: Value) -> torch.Tensor:
    """A value as a tensor."""
    if isinstance(value, torch.Tensor):
        return value
    if value is None:
        raise NotSupportedError("an input is left out")
    return torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape))


def operand(value: Value, other: Value) -> Any:
    """A value for an elementwise op with another: one number as a number, anything else as a tensor."""
    is_number = isinstance(value, np.ndarray) and value.size == 1 and value.dtype != np.bool_
    if is_number and isinstance(other, torch.Tensor) and known(value).ndim <= other.ndim:
        return known(value).item()
    return tensor(value)


def known(value: Value) -> np.ndarray:
    """An array of numbers that are known beforehand.

    Raises:
        DataDependentError: they depend on the input.
    """
    if not isinstance(value, np.ndarray):
        raise DataDependentError("a size or a setting depends on the values of the input")
    return value


def integers(value: Value) -> list[int]:
    """Known whole numbers.

    Raises:
        DataDependentError: they depend on the input.
    """
    return [int(number) for number in known(value).reshape(-1)]


def number(value: Value, default: Any) -> Any:
    """One known number; the default where it is left out.

    Raises:
        DataDependentError: it depends on the input.
    """
    if value is None:
        return default
    return known(value).reshape(-1)[0].item()


class Settings:
    """The attributes of a node; inputs beyond those given are None."""

    def __init__(self, attributes: dict[str, Any], outputs: int):
        self.attributes = attributes
        self.outputs = outputs

    def __deepcopy__(self, memo: dict[int, Any]) -> "Settings":
        return self

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or its default."""
        return self.attributes.get(name, default)

    def integers(self, name: str, values: Sequence[Value], position: int) -> list[int] | None:
        """Whole numbers that are an attribute in older operator sets and an input in later ones; None where neither."""
        if name in self.attributes:
            return [int(each) for each in np.atleast_1d(self.attributes[name])]
        value = at(values, position)
        return None if value is None else integers(value)


def at(values: Sequence[Value], position: int) -> Value:
    """The input at a position; None where there is none."""
    return values[position] if position < len(values) else None
