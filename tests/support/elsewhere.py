"""A device made of the CPU: tensors that say they are on "elsewhere:0", and refuse to meet those that are not.

To torch it is a device as any other: its tensors are plain `torch.Tensor`s with storages of their own, parameters are
parameters, autograd, views, autocast, `torch.save` and `map_location` do what they do on a GPU. Every kernel is the
CPU's, run on tensors that share the memory. What a GPU refuses is refused here too: an op on tensors of both places,
`.numpy()`, and, with `without_float64`, double precision, which Apple's GPUs lack. Its random numbers are its own.

So it shows whether code moves what it must and leaves alone what it must, and that results are the CPU's bit for bit.
It cannot show what only a GPU has: other rounding (TF32, other orders of sums), streams, graphs, events, a memory that
fills up, kernels that are missing, two devices of one kind. Where there is a GPU, `HERE` is that, and the same cases
run on it (`device_*.py`).

Whoever imports this has the device for as long as the process lasts, with a thread of autograd's for it, after which no
process should be forked: `test_elsewhere` gives the cases processes of their own.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.library import Library, fallthrough_kernel
from torch.utils import _pytree as pytree

from slimnet import SurgeryPlan

NAME = "elsewhere"
CPU = torch.device("cpu")
CPU_KERNELS = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
ATEN: Any = torch.ops.aten
SET = ATEN.set_.source_Storage_storage_offset


class Machine:
    """What torch asks the module of a device: how many there are, and the state of their random numbers."""

    def __init__(self) -> None:
        self.manual_seed_all(0)
        self.float64 = True

    def manual_seed_all(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed).get_state()

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return self.random.clone()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        self.random = state.clone()

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


MACHINE = Machine()


def on_device(held: torch.UntypedStorage) -> torch.UntypedStorage:
    """A storage of the device over the memory of one of the CPU, which lives as long."""
    storage = torch._C._construct_storage_from_data_pointer(held.data_ptr(), ELSEWHERE, held.nbytes())
    storage.held = held
    return storage


def tensor_over(storage: torch.UntypedStorage, like: torch.Tensor) -> torch.Tensor:
    """A tensor of the device that lies in its storage as another does in its own."""
    empty = torch._C._acc.create_empty_tensor([0], like.dtype)
    return SET.redispatch(CPU_KERNELS, empty, storage, like.storage_offset(), like.size(), like.stride())


def opened(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers as a tensor of the CPU, in the same memory."""
    place = tensor.storage_offset(), tensor.size(), tensor.stride()
    return torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage().held, *place)


class Work:
    """One op: its arguments opened, and its results brought back to where they belong."""

    def __init__(self, op: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        self.op, self.opened, self.storages = op, {}, {}
        leaves, spec = pytree.tree_flatten((args, kwargs))
        named = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
        self.returns_here = not named or named[-1].type == NAME
        self.given = leaves
        self.args, self.kwargs = pytree.tree_unflatten([self.open(leaf) for leaf in leaves], spec)
        if any(is_stranger(each) for each in strict_leaves(op, args, kwargs)):
            raise RuntimeError(f"Expected all tensors to be on the same device, but {op} got {ELSEWHERE} and cpu")

    def open(self, leaf: Any) -> Any:
        """An argument as the CPU's kernels take it."""
        if isinstance(leaf, torch.device) and leaf.type == NAME:
            return CPU
        if not isinstance(leaf, torch.Tensor) or leaf.device.type != NAME:
            return leaf
        if id(leaf) not in self.opened:
            self.opened[id(leaf)] = leaf, opened(leaf)
            self.storages[leaf.untyped_storage().held._cdata] = leaf
        return self.opened[id(leaf)][1]

    def closed(self, out: Any) -> Any:
        """A result as a tensor of the device: the argument it is, a view of one, or a new one."""
        if not isinstance(out, torch.Tensor) or out.device.type != "cpu" or any(out is each for each in self.given):
            return out
        for ours, theirs in self.opened.values():
            if out is theirs:
                return ours
        if not MACHINE.float64 and out.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"Cannot convert a {NAME} Tensor to float64 dtype, which the device does not support")
        base = self.storages.get(out.untyped_storage()._cdata)
        if base is None:
            return tensor_over(on_device(out.untyped_storage()), out)
        # In inference mode a view of an ordinary tensor is an ordinary one.
        with torch.inference_mode(base.is_inference()):
            return tensor_over(base.untyped_storage(), out)

    def grown(self) -> None:
        """Let arguments that an op has given another shape, or more memory, follow."""
        for ours, theirs in self.opened.values():
            memory = theirs.untyped_storage()
            same = memory.data_ptr() == ours.untyped_storage().data_ptr() and theirs.stride() == ours.stride()
            if theirs.size() != ours.size() or not same:
                place = theirs.storage_offset(), theirs.size(), theirs.stride()
                SET.redispatch(CPU_KERNELS, ours, on_device(memory), *place)

    def done(self) -> Any:
        """Run the op."""
        with own_random_numbers(self.op):
            out = KERNELS.get(self.op, self.op)(*self.args, **self.kwargs)
        if self.op._schema.is_mutable:
            self.grown()
        return pytree.tree_map(self.closed, out) if self.returns_here else out


def is_stranger(value: Any) -> bool:
    """Whether an argument is of the CPU and no single number, which a device takes from there."""
    if isinstance(value, torch.Generator):
        return True
    return isinstance(value, torch.Tensor) and value.device.type != NAME and value.ndim > 0


def strict_leaves(op: Any, args: tuple, kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that have to be here: of a copy none, of indexing all but the numbers of rows."""
    if op is ATEN._copy_from.default:
        return []
    return pytree.tree_leaves((args[:1], args[2:], kwargs) if op in INDEXING else (args, kwargs))


def fallback(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Do an op that has a tensor of the device among its arguments, or makes one."""
    with torch._C._AutoDispatchBelowAutograd():
        if op in (SET, ATEN.set_.source_Storage):
            return op.redispatch(CPU_KERNELS, *args, **kwargs)
        return Work(op, args, kwargs).done()


@contextmanager
def own_random_numbers(op: Any) -> Iterator[None]:
    """Let an op draw from the device's random numbers."""
    if torch.Tag.nondeterministic_seeded not in op.tags:
        yield
        return
    before = torch.get_rng_state()
    torch.default_generator.set_state(MACHINE.random)
    try:
        yield
    finally:
        MACHINE.random = torch.get_rng_state()
        torch.default_generator.set_state(before)


def convolved_backward(gradient: Any, images: Any, weight: Any, *rest: Any) -> Any:
    """The gradients of a convolution, whose bias torch leaves out where a device brings its own."""
    *settings, transposed, output_padding, groups, mask = rest
    bias = [weight.shape[1] * groups if transposed else weight.shape[0]] if mask[2] else None
    arguments = (bias, *settings, transposed, output_padding, groups, mask)
    return ATEN.convolution_backward.default(gradient, images, weight, *arguments)


KERNELS: dict[Any, Callable[..., Any]] = {
    ATEN.convolution_overrideable.default: ATEN.convolution.default,
    ATEN.convolution_backward_overrideable.default: convolved_backward,
    ATEN._copy_from.default: lambda source, target, non_blocking=False: target.copy_(source),
}
"""Ops that torch has for devices alone."""
BY_NAME = (*KERNELS, ATEN.empty_strided.default, ATEN.empty.memory_format)
"""Ops that are registered one by one: while a dispatch mode is on, torch does not come to the fallback for them."""
INDEXING = (ATEN.index.Tensor_out, ATEN.index_put_.default, ATEN._index_put_impl_.default)
SHORTENED = (ATEN.conv2d.default, ATEN.linear.default, ATEN.matmul.default)
"""Ops that autocast does in a short type."""


def autocast(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Do an op in the short type that was asked for."""
    short = torch.get_autocast_dtype(NAME)
    args, kwargs = pytree.tree_map_only(
        torch.Tensor, lambda each: each.to(short) if each.dtype == torch.float32 else each, (args, kwargs)
    )
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
        return op(*args, **kwargs)


def registered() -> list[Library]:
    """Tell torch of the device; what this returns keeps it there."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, MACHINE)
    torch.utils.generate_methods_for_privateuse1_backend(False, False, False, for_storage=True)
    every, aten = Library("_", "IMPL"), Library("aten", "IMPL")
    every.fallback(fallback, "PrivateUse1")
    every.fallback(fallthrough_kernel, "AutocastPrivateUse1")
    for ops, kernel, key in ((BY_NAME, fallback, "PrivateUse1"), (SHORTENED, autocast, "AutocastPrivateUse1")):
        for op in ops:
            aten.impl(op.name(), lambda *args, kernel=kernel, op=op, **kwargs: kernel(op, *args, **kwargs), key)
    plain = torch.storage._StorageBase.clone
    # `copy.deepcopy` of a tensor asks torch for memory of its device, which only a device in C++ can give.
    torch.storage._StorageBase.clone = lambda self: on_device(self.held.clone()) if self.is_elsewhere else plain(self)
    return [every, aten]


@contextmanager
def without_float64() -> Iterator[None]:
    """A device that has no double precision."""
    MACHINE.float64 = False
    try:
        yield
    finally:
        MACHINE.float64 = True


GPU = torch.cuda.is_available()
REGISTERED = [] if GPU else registered()
ELSEWHERE = CPU if GPU else torch.device(NAME, 0)
HERE = torch.device("cuda", 0) if GPU else ELSEWHERE
"""Where the cases run."""


def is_same(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether what came of HERE is what came of the CPU: the same bits, or on a GPU, which rounds to TF32, nearly."""
    left, right = actual.cpu(), expected.cpu()
    return torch.allclose(left, right, rtol=0, atol=0.05 * float(right.abs().max())) if GPU else left.equal(right)


def same_plan(ours: SurgeryPlan, expected: SurgeryPlan) -> bool:
    """Whether a plan is that of the CPU; on a GPU constants are added up in another order, so that they may differ."""
    if GPU:
        ours, expected = (dataclasses.replace(plan, folds=(), merges=()) for plan in (ours, expected))
    return ours == expected
