"""Networks for images of any height and width: inputs of another size, and the layer that does not take them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from slimnet.errors import ExportError, reason
from slimnet.modules.example_inputs import Inputs, tensors_in
from slimnet.torch_state.random_state import random_numbers_kept

SizeAxes = tuple[int, int]
"""The axes of height and width."""

NAMES = ("height", "width")

LARGEST_STEP = 32
"""The largest power of two by which another size is larger: the stride of most networks."""


def at_another_size(inputs: Inputs, axes: SizeAxes) -> Inputs:
    """The inputs with larger images, not square ones, that can be halved as often as the given ones."""
    return inputs.map(lambda images: tiled(tiled(images, axes[0], 1), axes[1], 2))


def tiled(images: torch.Tensor, axis: int, steps: int) -> torch.Tensor:
    """The images continued by themselves along an axis."""
    size = images.shape[axis]
    step = min(size & -size, LARGEST_STEP)
    return images.index_select(axis, torch.arange(size + steps * step, device=images.device) % size)


@dataclass
class Layers:
    """The layers of a network in the order of their calls, while it runs within this context.

    `open` are the paths of the modules whose forward has begun and not ended, and `calls` those of all calls, each with
    the lengths of the first axes of its inputs. While torch.export traces the network, `fixing` is the path of the
    first module that makes a condition on the size which images of the shape `other` do not meet.
    """

    module: nn.Module
    other: tuple[int, ...] = ()
    fixing: str | None = None
    environment: Any = None
    values: dict[Any, int] = field(default_factory=dict)
    checked: int = 0
    open: list[str] = field(default_factory=list)
    calls: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    handles: list[Any] = field(default_factory=list)

    def __enter__(self) -> "Layers":
        for path, module in self.module.named_modules():
            self.handles.append(module.register_forward_pre_hook(self.begin(path), with_kwargs=True))
            self.handles.append(module.register_forward_hook(self.end))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def begin(self, path: str) -> Any:
        """The hook that runs before a module."""

        def record(_: nn.Module, args: Any, kwargs: Any) -> None:
            given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            if not self.calls and self.other:
                self.begin_sizes(given[0])
            self.calls.append((path, tuple(tensor.shape[0] if tensor.ndim else 0 for tensor in given)))
            self.look()
            self.open.append(path)

        return record

    def end(self, *_: Any) -> None:
        """The hook that runs after a module."""
        self.look()
        self.open.pop()

    def begin_sizes(self, images: torch.Tensor) -> None:
        """Find torch's conditions on the shape of the network's input, and the symbols of its axes."""
        for size, value in zip(images.shape, self.other, strict=True):
            if isinstance(size, torch.SymInt):
                self.environment = size.node.shape_env
                self.values[size.node.expr] = value

    def look(self) -> None:
        """Note the module that is running if it has made a condition that the other size does not meet."""
        if self.environment is None or self.fixing is not None:
            return
        # torch has imported it by now; it takes a second that loading a bundle does not need.
        import sympy

        conditions = self.environment.guards[self.checked :]
        self.checked += len(conditions)
        if any(condition.expr.xreplace(self.values) is sympy.false for condition in conditions):
            self.fixing = self.open[-1] if self.open else ""


def check_other_size(module: nn.Module, inputs: Inputs, other: Inputs) -> None:
    """Refuse a network that does not take images of another size, or for which they are another number of images.

    Raises:
        ExportError: naming the layer.
    """
    name = type(module).__name__
    first, before = outputs_of(module, inputs)
    second, after = outputs_of(module, other)
    if [len(each) for each in first] == [len(each) for each in second]:
        return
    for (path, rows), (_, others) in zip(before.calls, after.calls, strict=False):
        if path and rows != others:
            raise fixed_size(module, name, path, f"it gets {others[0]} rows instead of {rows[0]} for {size_of(other)}")
    raise fixed_size(
        module, name, "", f"it returns {len(second[0])} rows instead of {len(first[0])} for {size_of(other)}"
    )


def check_size_is_free(layers: Layers, network: str) -> None:
    """Refuse a traced network with a layer that makes a condition on height or width.

    Raises:
        ExportError: naming the layer.
    """
    if layers.fixing is not None:
        raise fixed_size(layers.module, network, layers.fixing, "it computes with the size as a constant")


def outputs_of(module: nn.Module, inputs: Inputs) -> tuple[list[torch.Tensor], Layers]:
    """The outputs of a network that have axes, and the calls of its layers.

    Raises:
        ExportError: its forward raises.
    """
    with Layers(module) as layers, torch.no_grad(), torch.device("cpu"), random_numbers_kept():
        try:
            outputs = tensors_in(inputs.call(module))
        except Exception as error:  # a forward may raise anything
            path = layers.open[-1] if layers.open else ""
            why = f"{reason(error)}, for {size_of(inputs)}"
            raise fixed_size(module, type(module).__name__, path, why) from error
    return [each for each in outputs if each.ndim], layers


def fixed_size(module: nn.Module, network: str, path: str, why: str) -> ExportError:
    """The error for a network whose module at `path` takes images of one size."""
    layer = module.get_submodule(path)
    where = f"layer {path} ({type(layer).__name__})" if path else "its own forward"
    return ExportError(
        f"{network} does not take images of any size: {where} fixes height or width ({why}); "
        "leave dynamic_size= out, or pool to a fixed size before that layer"
    )


def size_of(inputs: Inputs) -> str:
    """The shape of an image, in words."""
    return f"images of {' × '.join(map(str, inputs.tensors[0].shape[1:]))}"
