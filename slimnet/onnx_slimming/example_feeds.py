"""Example inputs for the inputs that a graph declares: drawn with seeds, in the sizes that it leaves open."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import helper

from slimnet.errors import InputError, UsageError

EXAMPLES = 4
"""How many examples are drawn where the batch size is open."""

SIDE, OTHER_SIDE = 224, 32
"""Height and width of images where they are open, and by how much others that are tried are larger."""

INPUT_LIMIT = 1 << 30
"""The most bytes of one input."""

Feed = dict[str, np.ndarray]


@dataclass(frozen=True)
class GraphInput:
    """An input that a graph declares; sizes that it leaves open are None."""

    name: str
    dtype: np.dtype
    sizes: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join('?' if size is None else str(size) for size in self.sizes)})"


def inputs_of(model: onnx.ModelProto) -> list[GraphInput]:
    """The inputs of a graph that are no stored tensors.

    Raises:
        UsageError: there is none, or one is no tensor of numbers with a known number of axes.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    found = []
    for each in model.graph.input:
        if each.name in stored:
            continue
        kind = each.type.tensor_type
        if not each.type.HasField("tensor_type") or not kind.HasField("shape"):
            raise UsageError(
                f"input {each.name!r:.80} of the model has no known number of axes; export it with a shape"
            )
        sizes = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim
        )
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        if dtype.kind not in "fiub":
            raise UsageError(f"input {each.name!r:.80} of the model is of type {dtype}, not of numbers")
        found.append(GraphInput(each.name, dtype, sizes))
    if not found:
        raise UsageError("the model has no inputs, so that it computes a constant")
    return found


def sizes_for(given: GraphInput, shape: Sequence[int] | None, first: bool) -> tuple[int, ...]:
    """The sizes of an input: those declared, those asked for without the batch `shape`, and the usual ones.

    Raises:
        UsageError: a size is open and nobody knows what is usual, or another one is asked for than declared.
    """
    declared = list(given.sizes)
    if shape is not None and first:
        asked = [None, *shape]
        if len(asked) != len(declared) or any(d not in (None, a) for d, a in zip(declared[1:], asked[1:], strict=True)):
            raise UsageError(f"the model's input is {given}; {tuple(shape)} does not fit it")
        declared[1:] = asked[1:]
    if declared and declared[0] is None:
        declared[0] = EXAMPLES
    if len(declared) == 4:
        declared[2:] = [SIDE if size is None else size for size in declared[2:]]
    if None in declared:
        raise UsageError(f"the model's input is {given}; give the sizes that it leaves open, as C,H,W")
    sizes = tuple(int(size) for size in declared if size is not None)
    if math.prod(sizes) * given.dtype.itemsize > INPUT_LIMIT:
        raise UsageError(f"the model's input is {given}, more than {INPUT_LIMIT >> 30} GB; give a smaller one")
    return sizes


def draw(inputs: Sequence[GraphInput], sizes: Sequence[tuple[int, ...]], seed: int) -> Feed:
    """Random inputs: normal numbers, and 0 or 1 where they are whole."""
    random = np.random.default_rng(seed)
    return {
        each.name: random.standard_normal(shape).astype(each.dtype)
        if each.dtype.kind == "f"
        else random.integers(0, 2, shape).astype(each.dtype)
        for each, shape in zip(inputs, sizes, strict=True)
    }


def given_feed(inputs: Sequence[GraphInput], example: Mapping[str, torch.Tensor] | Sequence[torch.Tensor]) -> Feed:
    """Inputs that were given, by name or in their order.

    Raises:
        InputError: they are others than the graph declares.
    """
    names = [each.name for each in inputs]
    tensors = dict(example) if isinstance(example, Mapping) else dict(zip(names, example, strict=False))
    if set(tensors) != set(names) or len(example) != len(names):
        raise InputError(f"the model takes {', '.join(map(str, inputs))}; pass one tensor for each")
    feed = {name: np.asarray(tensors[name].detach().cpu()) for name in names}
    for each in inputs:
        array = feed[each.name]
        fits = len(array.shape) == len(each.sizes) and array.dtype == each.dtype
        if not fits or any(size not in (None, got) for size, got in zip(each.sizes, array.shape, strict=True)):
            raise InputError(f"the model takes {each} of {each.dtype}; {array.shape} of {array.dtype} does not fit")
    return feed


def further_feeds(inputs: Sequence[GraphInput], first: Feed) -> list[Feed]:
    """More inputs for the certificate: another batch size and other sizes of images where open, and other numbers."""
    shapes = [first[each.name].shape for each in inputs]
    if any(each.sizes and each.sizes[0] is not None for each in inputs):
        found = [draw(inputs, shapes, seed) for seed in range(1, EXAMPLES)]
    else:
        found = [draw(inputs, [(1, *shape[1:]) for shape in shapes], 1)]
    if any(len(each.sizes) == 4 and None in each.sizes[2:] for each in inputs):
        larger_shapes = [larger(each, shape) for each, shape in zip(inputs, shapes, strict=True)]
        found.append(draw(inputs, larger_shapes, len(found) + 1))
    return found


def larger(given: GraphInput, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape with larger planes, where their size is open."""
    if len(shape) != 4:
        return shape
    planes = (
        size + OTHER_SIDE if open_size is None else size
        for size, open_size in zip(shape[2:], given.sizes[2:], strict=True)
    )
    return (*shape[:2], *planes)
