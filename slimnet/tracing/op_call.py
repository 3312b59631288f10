"""op_call"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch


class Call(NamedTuple):
    """One dispatched op with its arguments, the tensors among them, and its outputs, all on the meta device."""

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[torch.Tensor, ...]
    tensors: tuple[torch.Tensor, ...]

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument given by position or by keyword."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def run(self, tensors: Iterable[torch.Tensor], *drop: str) -> Any:
        """Call the op with other tensors in the place of its own, and without some keyword arguments."""
        given = iter(tensors)
        if len(self.args) == 1 and not self.kwargs and isinstance(self.args[0], torch.Tensor):
            return self.func(next(given))
        args = [replaced(value, given) for value in self.args]
        kwargs = {key: replaced(value, given) for key, value in self.kwargs.items()}
        return self.func(*args, **{key: value for key, value in kwargs.items() if key not in drop})


def replaced(value: Any, given: Iterator[torch.Tensor]) -> Any:
    """An op's argument with each tensor in it replaced by the next of the given ones."""
    if isinstance(value, torch.Tensor):
        return next(given)
    if isinstance(value, list | tuple):
        return [next(given) if isinstance(item, torch.Tensor) else item for item in value]
    return value
