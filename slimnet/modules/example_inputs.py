"""Example inputs: a tensor, several, or a dict of keyword arguments, in one shape for every stage."""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from slimnet.errors import InputError, UsageError, shown
from slimnet.modules.copying import check_filled
from slimnet.modules.network import Network

ExampleInputs = torch.Tensor | Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class Inputs:
    """Positional and keyword arguments of one forward call, and the classes `(N,)` of the examples where known."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    labels: torch.Tensor | None = None

    @classmethod
    def of(cls, example: "ExampleInputs | Inputs") -> "Inputs":
        """Wrap whatever a user passes as example inputs.

        Raises:
            InputError: it holds no tensor, or an empty one.
        """
        if isinstance(example, Inputs):
            return example
        if isinstance(example, Mapping):
            inputs = cls((), dict(example))
        elif isinstance(example, Sequence):
            inputs = cls(tuple(example), {})
        else:
            inputs = cls((example,), {})
        if not inputs.tensors:
            raise InputError(f"example inputs of type {type(example).__name__} hold no tensor; pass what forward takes")
        if not inputs.tensors[0].numel():
            raise InputError(
                f"example inputs of shape {tuple(inputs.tensors[0].shape)} hold no example; pass at least one"
            )
        return inputs

    @classmethod
    def of_batch(cls, batch: Any) -> "Inputs":
        """Wrap a batch of a data loader: of `(inputs, labels)` pairs with integer labels forward gets the inputs."""
        pair = isinstance(batch, list | tuple) and len(batch) == 2 and isinstance(batch[1], torch.Tensor)
        if not pair or batch[1].is_floating_point():
            return cls.of(batch)
        inputs = cls.of(batch[0])
        classes = batch[1].ndim == 1 and len(batch[1]) == inputs.batch
        return replace(inputs, labels=batch[1] if classes else None)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Every tensor among the arguments."""
        return [leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, torch.Tensor)]

    @property
    def batch(self) -> int:
        """The number of examples: the size of the first tensor's first axis.

        A list of images `(3, H, W)`, as detectors take it, has as many as images.
        """
        first = self.tensors[0]
        images = self.args[0] if self.args else None
        if isinstance(images, list | tuple) and all(is_image(each) for each in images):
            return len(images)
        return max(1, first.shape[0]) if first.ndim else 1

    def map(self, change: Any) -> "Inputs":
        """The same arguments with `change` applied to every tensor."""
        args, kwargs = pytree.tree_map_only(torch.Tensor, change, (self.args, self.kwargs))
        return replace(self, args=args, kwargs=kwargs)

    def to(self, device: torch.device) -> "Inputs":
        """The same arguments and labels with every tensor on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self.map(lambda tensor: tensor.to(device)), labels=labels)

    def call(self, model: nn.Module) -> Any:
        """Run the module on copies of these arguments: a forward may write into what it is given."""
        return self.map(torch.clone).call_directly(model)

    def call_directly(self, model: nn.Module) -> Any:
        """Run the module on these arguments themselves, where their copies would be measured or followed as well."""
        return model(*self.args, **self.kwargs)

    def check_against(self, model: nn.Module) -> None:
        """Refuse inputs on another device than the module's, or of a floating type it does not have.

        Raises:
            InputError: naming what differs.
        """
        tensor = next((p for p in model.parameters() if p.is_floating_point()), None)
        if tensor is None:
            return
        for given in self.tensors:
            if given.device != tensor.device:
                raise InputError(
                    f"example inputs are on {given.device} but the network is on {tensor.device}; "
                    f"move them with .to('{tensor.device}')"
                )
            if given.is_floating_point() and given.dtype != tensor.dtype:
                raise InputError(
                    f"example inputs are {given.dtype} but the network is {tensor.dtype}; "
                    f"convert them with .to({tensor.dtype})"
                )


def is_image(value: Any) -> bool:
    """Whether this is one image `(3, H, W)`."""
    return isinstance(value, torch.Tensor) and value.ndim == 3 and value.shape[0] == 3


def batched(example: ExampleInputs | Inputs, batch: int) -> Inputs:
    """The example inputs with exactly `batch` examples, repeated or truncated as needed.

    Raises:
        InputError: they hold no tensor, or an empty one.
    """
    inputs = Inputs.of(example)
    if any(tensor.ndim and not tensor.shape[0] for tensor in inputs.tensors):
        raise InputError("the example inputs hold no example: their first axis has length 0; pass at least one")
    return inputs.map(lambda tensor: tensor[[i % len(tensor) for i in range(batch)]] if tensor.ndim else tensor)


def tensors_in(output: Any) -> list[torch.Tensor]:
    """Every tensor in a network's output: tensors, tuples, dicts, named tuples, and objects that hold any of these."""
    return [tensor for _, tensor in placed_tensors_in(output)]


Place = tuple[str, ...]
"""Where in an output a tensor is: positions, keys and attributes."""


def placed_tensors_in(output: Any) -> list[tuple[Place, torch.Tensor]]:
    """Every tensor in a network's output, with where it is."""
    found: list[tuple[Place, torch.Tensor]] = []
    add_tensors(output, (), found, set())
    return found


def add_tensors(value: Any, place: Place, found: list[tuple[Place, torch.Tensor]], seen: set[int]) -> None:
    """Add the tensors in a value to those found; `seen` are the objects that have been looked into."""
    for path, leaf in pytree.tree_flatten_with_path(value)[0]:
        here = (*place, *re.findall(r"\w+", pytree.keystr(path)))
        if isinstance(leaf, torch.Tensor):
            found.append((here, leaf))
        elif not isinstance(leaf, WHOLE) and id(leaf) not in seen:
            seen.add(id(leaf))
            for name, part in parts_of(leaf):
                add_tensors(part, (*here, name), found, seen)


WHOLE = (
    str,
    bytes,
    int,
    float,
    complex,
    type(None),
    type,
    FunctionType,
    MethodType,
    ModuleType,
    nn.Module,
    torch.dtype,
)
"""What holds no output of a network: plain values, code, and networks themselves."""


def parts_of(value: Any) -> list[tuple[str, Any]]:
    """What an object consists of, by name: its items, where it is a container of its own kind, and its attributes."""
    parts: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        parts += [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple | Set):
        parts += [(str(place), item) for place, item in enumerate(value)]
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        parts += [(name, getattr(value, name, None)) for name in ((slots,) if isinstance(slots, str) else slots)]
    return [*parts, *getattr(value, "__dict__", {}).items()]


def check_inputs(model: nn.Module | Network, example_inputs: ExampleInputs) -> Inputs:
    """Example inputs that fit the module's device and dtype.

    Raises:
        InputError, UsageError: they do not, or the model is not a module that can be copied and cut.
    """
    network = check_module(model)
    inputs = Inputs.of(example_inputs)
    inputs.check_against(network.module)
    return inputs


def check_module(model: nn.Module | Network) -> Network:
    """The network of a module that can be copied and cut.

    Raises:
        UsageError: it is none, or its tensors have no shape or no values yet.
    """
    if isinstance(model, Network):
        return model
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise UsageError(f"model is {shown(model)}; pass the torch.nn.Module that it was made from")
    network = Network.of(model)
    lazy = [name for name, tensor in network.state.items() if nn.parameter.is_lazy(tensor)]
    if lazy:
        raise UsageError(f"the network's {lazy[0]} has no shape yet; run the network once on the example inputs")
    check_filled(network)
    return network
