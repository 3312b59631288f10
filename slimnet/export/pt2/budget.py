"""Budget: bounds on the memory and work of running a captured network, checked before every operator is run.

Each operator is run on meta tensors first, which costs neither. The memory and work that it would take, including the
operators it calls, must fit into a budget that grows with the inputs and with the size of the weights: a small file
cannot demand much.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import flop_registry

from slimnet.errors import BundleError
from slimnet.torch_state.eager_mode import EagerMode

MEMORY = 2**30
"""The bytes that any network may hold at once."""

MEMORY_PER_INPUT = 512
"""Further bytes for each byte of the inputs: a layer from 1 to 64 channels makes its input 64 times as large."""

MEMORY_PER_WEIGHT = 4
"""Further bytes for each byte of the weights."""

WORK = 2**33
"""The arithmetic operations that any network may do."""

WORK_PER_PAIR = 16
"""Further operations for each pair of an input and a weight; a convolution does two per weight and position."""

MOST_PIECES = 2**12
"""The most tensors that one operator may return."""

CUBIC = (
    "linalg",
    "svd",
    "qr",
    "inverse",
    "cholesky",
    "eig",
    "det",
    "matrix_",
    "lstsq",
    "solve",
    "cdist",
    "lu_",
    "pinv",
)
"""Parts of the names of operators that do as much work as a matrix product."""

BY_CONTENT = {"nonzero", "masked_select", "item", "_local_scalar_dense", "nms"}
"""Operators whose output shape depends on values, and whose output is no larger than their input."""

SHORT = (torch.float16, torch.bfloat16)


class Budget:
    """Counts the memory and work of one run of a network."""

    def __init__(self, inputs: Sequence[torch.Tensor], weights: Iterable[torch.Tensor]) -> None:
        held = list(weights)
        given = sum(each.numel() * each.itemsize for each in inputs)
        kept = sum(each.numel() * each.itemsize for each in held)
        self.memory = MEMORY + MEMORY_PER_INPUT * given + MEMORY_PER_WEIGHT * kept
        pairs = sum(each.numel() for each in inputs) * sum(each.numel() for each in held)
        self.work = WORK + WORK_PER_PAIR * pairs
        self.storages: dict[int, list[int]] = {}
        self.bytes = 0

    def hold(self, value: Any) -> None:
        """Add the memory of a value; tensors of one storage count once."""
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            entry = self.storages.setdefault(storage._cdata, [0, storage.nbytes()])
            self.bytes += 0 if entry[0] else entry[1]
            entry[0] += 1

    def release(self, value: Any) -> None:
        """Subtract the memory of a value."""
        if isinstance(value, torch.Tensor):
            key = value.untyped_storage()._cdata
            self.storages[key][0] -= 1
            if not self.storages[key][0]:
                self.bytes -= self.storages.pop(key)[1]

    def charge(self, work: int, memory: int) -> None:
        """Charge the budget with the work and memory of one operator.

        Raises:
            BundleError: it exceeds the budget.
        """
        self.work -= work
        if self.work < 0:
            raise BundleError("it computes far more than a network of its size and inputs")
        if self.bytes + memory > self.memory:
            raise BundleError("it makes far larger tensors than a network of its size and inputs")

    def check(self, operator: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Charge the budget with a call of an operator, without running it.

        Raises:
            BundleError: it exceeds the budget, or its cost cannot be determined.
        """
        name = operator._schema.name.partition("::")[2]
        if name in BY_CONTENT or (name == "index" and is_one_mask(args[1])):
            read = sum(each.numel() * max(1, each.ndim) for each in tensors_of(args))
            self.charge(read, 8 * read)
            return
        if pieces(name, args) > MOST_PIECES:
            raise BundleError(f"it divides a tensor into more than {MOST_PIECES:,}")
        shadows, named = on_meta(operator, args, kwargs)
        try:
            with Trial(self.charge):
                operator(*shadows, **named)
        except NotImplementedError as error:
            raise BundleError(f"it calls {operator}, whose results may be of any size") from error


def is_one_mask(indices: Any) -> bool:
    """Whether the indices of an operator are one boolean mask and nothing else."""
    masks = [each for each in indices if each is not None]
    return len(masks) == 1 and masks[0].dtype in (torch.bool, torch.uint8)


def on_meta(
    operator: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call with meta tensors in place of its own, and "meta" in place of any device."""
    widened, meta = torch.is_autocast_enabled("cpu"), torch.device("meta")

    def without_numbers(value: torch.Tensor | torch.device) -> Any:
        if isinstance(value, torch.device):
            return meta
        # Autocast does not apply to meta tensors, so that operators would get tensors of two types here.
        dtype = torch.float32 if widened and value.dtype in SHORT else value.dtype
        return torch.empty_strided(value.shape, value.stride(), dtype=dtype, device=meta)

    given, named = pytree.tree_map_only((torch.Tensor, torch.device), without_numbers, (list(args), kwargs))
    parameters = [argument.name for argument in operator._schema.arguments]
    if "device" in parameters[len(given) :]:
        named = named | {"device": meta}
    return given, named


def pieces(name: str, args: Sequence[Any]) -> int:
    """The number of tensors into which an operator divides one, if it depends on the length of an axis or a number."""
    match name, args:
        case (("split" | "unsafe_split"), [tensor, int() as length, *rest]):
            axis = tensor.shape[rest[0] if rest else 0]
            return -(-axis // length) if length > 0 else 0
        case "unbind", [tensor, *rest]:
            return int(tensor.shape[rest[0] if rest else 0])
        case (("chunk" | "unsafe_chunk" | "tensor_split" | "hsplit" | "vsplit" | "dsplit"), [_, int() as count, *_]):
            return count
    return 0


class Trial(EagerMode):
    """Counts the work and memory of every operator that is called in its context."""

    def __init__(self, charge: Callable[[int, int], None]) -> None:
        super().__init__()
        self.charge, self.memory = charge, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if pieces(func._schema.name.partition("::")[2], args) > MOST_PIECES:
            raise BundleError(f"it divides a tensor into more than {MOST_PIECES:,}")
        result = func(*args, **kwargs)
        made = tensors_of(result)
        size = sum(each.numel() * each.itemsize for each in made)
        if not func.is_view:
            self.memory += size + columns_of(func, args, result)
        self.charge(work_of(func, args, kwargs, result), max(self.memory, size))
        return result


def work_of(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """The approximate number of arithmetic operations of a call."""
    if func.is_view:
        return 0
    name, given, made = func._schema.name.partition("::")[2], tensors_of((args, kwargs)), tensors_of(result)
    numbers = sum(each.numel() for each in (*given, *made))
    if func.overloadpacket in flop_registry:
        return numbers + int(flop_registry[func.overloadpacket](*args, **kwargs, out_val=result))
    if "pool" in name and "adaptive" not in name and isinstance(args[1], list | tuple):
        return numbers + sum(each.numel() for each in made) * math.prod(args[1])
    if any(word in name for word in CUBIC):
        return numbers * max((size for each in given for size in each.shape), default=1)
    return numbers


def columns_of(func: Any, args: Any, result: Any) -> int:
    """The bytes of a convolution's unrolled input (im2col), which torch may need on the CPU."""
    if func.overloadpacket is not torch.ops.aten.convolution:
        return 0
    image, weight = args[0], args[1]
    if image.dtype == torch.float32 and image.shape[0] > 1:
        return 0
    plane = (image if args[6] else result).shape[2:]
    return int(math.prod(weight.shape[1:]) * image.shape[0] * math.prod(plane) * image.itemsize)


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Every tensor in arguments or results."""
    return [each for each in pytree.tree_leaves(value) if isinstance(each, torch.Tensor)]
