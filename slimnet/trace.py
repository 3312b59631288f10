"""trace: run a network's own forward once on meta tensors and write down what happens to every channel."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from slimnet.errors import SlimnetError, TraceError
from slimnet.garbage import collection_paused
from slimnet.graph import ChannelGraph, Depthwise, Op, Reader, Step
from slimnet.inputs import ExampleInputs, Inputs, tensors_in
from slimnet.places import together
from slimnet.reasons import Kind, Reason
from slimnet.skeleton import Skeleton, Tensors, gather, module_paths, modules_of, skeleton
from slimnet.tracing import shapes
from slimnet.tracing.accounting import Account
from slimnet.tracing.aliases import write_through
from slimnet.tracing.casting import as_with_data
from slimnet.tracing.labels import Labels, united
from slimnet.tracing.numbers import numbers_of
from slimnet.tracing.ops import HANDLERS, POINTWISE, unknown
from slimnet.tracing.recorder import Call, Recorder
from slimnet.tracing.refusals import refusal
from slimnet.tracing.tag import Tag
from slimnet.tracing.workers import work_followed

VIEWS = frozenset(["view", "_unsafe_view", "reshape", "_reshape_alias"])
"""Ops that give a tensor another shape, in which one size may be whatever is left."""


class InterruptedForwardError(Exception):
    """A forward that raised while it was traced, after `position` ops; `cause` says it for people."""

    def __init__(self, position: int, cause: SlimnetError):
        super().__init__(str(cause))
        self.position = position
        self.cause = cause


@torch.inference_mode(False)
@collection_paused()
def trace(model: nn.Module, inputs: ExampleInputs | Inputs) -> ChannelGraph:
    """Follow every channel of `model` through its forward in evaluation mode, on meta tensors.

    Parts that only training runs (auxiliary classifiers) are followed as well, in a second forward, so that the slim
    network can go on training, unless something else then runs in the place of what runs in evaluation. The model is
    not touched.

    Raises:
        TraceError: the forward needs real data (it branches on a value, or makes shapes from values).
        InputError: the forward does not take these inputs.
    """
    try:
        tensors = gather(model)
        return trace_structure(skeleton(model, tensors.named), tensors, Inputs.of(inputs))
    except InterruptedForwardError as stop:
        raise stop.cause from stop.__cause__


def trace_structure(structure: Skeleton, real: Tensors, inputs: Inputs, depthwise: Sequence[bool] = ()) -> ChannelGraph:
    """Trace a skeleton whose tensors have the values `real`, which are only looked at where constants need them.

    `depthwise` says which layers are depthwise, where the skeleton is that of a narrower network.

    Raises:
        InterruptedForwardError: the forward raised.
    """
    module, meta = structure
    modules = modules_of(module)
    if any(each.training for each in modules.values()):
        module.eval()
        meta = gather(module).named
    recorder = Recorder(modules, meta, real.named, depthwise)
    record(recorder, inputs)
    graph = finish(recorder, real, inputs.batch)
    named = real.named
    used = {id(named[name]) for name in graph.used}
    idle = [name for name, tensor in named.items() if id(tensor) not in used and isinstance(tensor, nn.Parameter)]
    if not idle:
        return graph
    for path in ancestors(idle):
        module.get_submodule(path).training = True
    recorder.begin_again(gather(module).named)
    try:
        record(recorder, inputs)
    except InterruptedForwardError:
        return graph
    if not graph.used <= recorder.used:
        # Training runs a twin, such as a moving average's, in the place of what is asked for.
        return graph
    with_training = finish(recorder, real, inputs.batch)
    again = with_training.steps[len(graph.steps) :]
    return replace(with_training, steps=graph.steps + tuple(map(without_macs, again)), macs=graph.macs)


def without_macs(step: Step) -> Step:
    """A step of the forward in training, which costs inference nothing."""
    return step._replace(macs=0) if isinstance(step, Reader | Depthwise) else step


def ancestors(names: list[str]) -> set[str]:
    """The modules around those that own the named parameters; the owners themselves are not among them."""
    found = set()
    for name in names:
        path = name.rpartition(".")[0]
        while path:
            path = path.rpartition(".")[0]
            found.add(path)
    return found


def record(recorder: Recorder, inputs: Inputs) -> None:
    """Run one forward of the skeleton, in the mode in which its modules are."""
    modules = recorder.modules
    given = inputs.map(lambda tensor: torch.empty_like(tensor.as_subclass(torch.Tensor), device="meta"))

    try:
        with as_with_data(), module_paths(modules, recorder.path), work_followed(ChannelMode(recorder)):
            output = given.call(modules[""])
        recorder.path.check()
        for tensor in tensors_in(output):
            recorder.pin_tensor(tensor, Reason(Kind.OUTPUT))
    except SlimnetError as error:
        raise InterruptedForwardError(len(recorder.ops), error) from error
    except Exception as error:
        raise InterruptedForwardError(len(recorder.ops), refusal(error, inputs)) from error


class ChannelMode(TorchDispatchMode):
    """Sends every ATen op to its handler in the op table."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder
        self.account = Account(recorder)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name, functional = names(func)
        if name == "empty" and args[0] == [0] and kwargs.get("dtype") is torch.uint8:
            # The reserve that every BatchNorm asks for and nobody reads.
            return shapes.nothing(torch.uint8)
        if name not in HANDLERS and torch.is_inference_mode_enabled() and is_composite(func):
            # Elsewhere torch takes such ops apart before they come here.
            with self:
                return func.decompose(*args, **kwargs)
        self.recorder.begin_op(sys._getframe(1))
        args, kwargs, tensors = self.on_meta(args, kwargs)
        if name == "index" and any(tensor.dtype is torch.bool for tensor in tensors):
            args = (args[0], self.positions(args[1]))
            tensors = tensors_among(args, kwargs)
        if name == "_local_scalar_dense":
            return self.scalar(tensors[0])
        if functional is not None:
            turn = self.turned if name.rstrip("_") in TURNING else self.in_place
            return turn(func, functional, args, kwargs, tensors)
        out = shapes.run(func, name, args, kwargs)
        call = Call(name, func, args, kwargs, outputs_of(out), tensors)
        if overwrites(func):
            self.overwritten(call)
        else:
            self.handle(call)
        return out

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nobody compiles this mode: without torch's guard against that, each op is dispatched twice as fast."""
        return False

    def in_place(
        self, _: Any, functional: Any, args: tuple, kwargs: dict, tensors: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Record an in-place op as its functional variant, then renew every view of what it changed."""
        written = args[0]
        name = names(functional)[0]
        sizes = [tensor.shape for tensor in tensors]
        differ = name in BROADCASTING and any(size != written.shape for size in sizes)
        if differ and shapes.broadcast_shape(*sizes) != tuple(written.shape):
            raise RuntimeError(f"shapes {[tuple(size) for size in sizes]} do not fit in place")
        call = Call(name, functional, args, kwargs, (written,), tensors)
        self.handle(call)
        write_through(self.recorder, written, self.recorder.here(call))
        return written

    def turned(
        self, func: Any, functional: Any, args: tuple, kwargs: dict, tensors: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Record an op that gives a tensor another shape in place: no value changes, so that views need no renewal."""
        out = functional(*args, **kwargs)
        self.handle(Call(names(functional)[0], functional, args, kwargs, (out,), tensors))
        func(*args, **kwargs)
        self.recorder.set(args[0], self.recorder.tag(out))
        return args[0]

    def overwritten(self, call: Call) -> None:
        """Record an op that writes into its arguments in a way of its own: nothing is known of them afterwards."""
        recorder = self.recorder
        arguments = enumerate(call.func._schema.arguments)
        given = [call.arg(place, argument.name) for place, argument in arguments if argument.is_write]
        written = tensors_among(tuple(given), {})
        unknown(recorder, call._replace(outputs=written))
        for tensor in written:
            write_through(recorder, tensor, recorder.here(call))
        self.note(call)

    def handle(self, call: Call) -> None:
        """Let the op table say what happens to the channels."""
        recorder = self.recorder
        known = self.known_value(call)
        self.account.open(call)
        HANDLERS.get(call.name, unknown)(recorder, call)
        self.account.settle(call)
        if known is not None:
            for index, tensor in enumerate(call.outputs):
                recorder.set(tensor, recorder.tag(tensor)._replace(value=known(index)))
        self.note(call)
        if call.name not in shapes.RULES:
            # It may return what it was given, or a view of it.
            for tensor in (*call.tensors, *call.outputs):
                recorder.note_storage(tensor)

    def on_meta(self, args: tuple, kwargs: dict) -> tuple[tuple, dict, tuple[torch.Tensor, ...]]:
        """The arguments with real tensors and device names replaced by meta ones, and the tensors among them."""
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": shapes.META}
        tensors = tensors_among(args, kwargs)
        for tensor in tensors:
            if not tensor.is_meta:
                args, kwargs = pytree.tree_map_only(torch.Tensor, self.constant, (args, kwargs))
                return args, kwargs, tensors_among(args, kwargs)
        return args, kwargs, tensors

    def constant(self, tensor: torch.Tensor) -> torch.Tensor:
        """A meta stand-in for a real tensor that the forward brought along.

        Raises:
            TraceError: it is one of the network's own, which a copy of the network would not have.
        """
        if tensor.is_meta:
            return tensor
        own = self.recorder.originals.get(id(tensor))
        if own is not None:
            raise TraceError(
                f"a copy of the network would go on using the original's {own}: a lambda, a closure or a weak "
                f"reference holds the module that is used in {self.recorder.where}; "
                "make it a method, or an attribute that holds the module"
            )
        stand_in = torch.empty_like(tensor, device="meta")
        self.recorder.set(stand_in, Tag(value=lambda: tensor))
        return stand_in

    def known_value(self, call: Call) -> Callable[[int], Callable[[], torch.Tensor]] | None:
        """How to compute the outputs of an op whose tensors are all known; None for anything else."""
        sources = []
        for tensor in call.tensors:
            source = self.recorder.value(tensor)
            if source is None:
                return None
            sources.append(source)
        if not sources and call.name not in FACTORIES:
            return None
        cache: list[Any] = []

        def compute(index: int) -> torch.Tensor:
            if not cache:
                with torch.no_grad():
                    # Without the device that the op was told, which was meta, some are made on the CPU.
                    cache.append(call.run(together([source() for source in sources]), "device"))
            return cache[0][index] if isinstance(cache[0], list | tuple) else cache[0]

        return lambda index: lambda: compute(index)

    def positions(self, indices: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Indices with the positions that a known mask picks in the place of the mask."""
        found: list[torch.Tensor | None] = []
        for index in indices:
            mask = self.recorder.value(index) if index is not None and index.dtype is torch.bool else None
            found += [index] if mask is None else [self.constant(place) for place in mask().nonzero(as_tuple=True)]
        return found

    def scalar(self, tensor: torch.Tensor) -> Any:
        """The number in a tensor that does not depend on the input."""
        value = self.recorder.value(tensor)
        if value is None:
            raise TraceError(
                f"the forward depends on data: a tensor's value is read in {self.recorder.where}; "
                "slimnet needs a forward whose ops do not depend on values"
            )
        return value().item()

    def note(self, call: Call) -> None:
        """Remember the op and its parameters, so that a resized network that fails can be told where."""
        recorder = self.recorder
        parameters, tags = recorder.parameters, recorder.tags
        touched: list[Labels] = []
        for tensor in call.tensors:
            if (name := parameters.get(id(tensor))) is not None:
                recorder.used.add(name)
        for tensor in (*call.tensors, *call.outputs):
            if (entry := tags.get(id(tensor))) is not None:
                touched += entry[1].faces
        numbers = numbers_of(recorder, call) if touched else ()
        shape = tuple(call.outputs[0].shape) if touched and call.name in VIEWS else ()
        line = recorder.line if touched else ""
        recorder.ops.append(Op(call.name, recorder.module, line, tuple(touched), numbers, shape))


@cache
def names(func: Any) -> tuple[str, Any]:
    """An op's name, and for an elementwise in-place op the op that computes what it writes, else None."""
    name = func.overloadpacket.__name__
    if not name.endswith("_") or name.startswith("_") or name.endswith("__"):
        return name, None
    return name, getattr(getattr(torch.ops.aten, name[:-1], None), func._overloadname, None)


@cache
def is_composite(func: Any) -> bool:
    """Whether an op is made of others."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


@cache
def overwrites(func: Any) -> bool:
    """Whether an op writes into tensors that it was given, other than the statistics of a BatchNorm."""
    schema = func._schema
    return schema.is_mutable and (
        func.overloadpacket.__name__ not in HANDLERS or any(a.is_out for a in schema.arguments)
    )


def tensors_among(args: tuple, kwargs: dict) -> tuple[torch.Tensor, ...]:
    """The tensors among an op's arguments, in lists as well."""
    found = []
    for value in (*args, *kwargs.values()) if kwargs else args:
        if type(value) in NO_TENSORS:
            continue
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, SEQUENCES) and value and type(value[0]) not in NO_TENSORS:
            found += [item for item in value if isinstance(item, torch.Tensor)]
    return tuple(found)


def outputs_of(out: Any) -> tuple[torch.Tensor, ...]:
    """The tensors that an op returned, one or several."""
    if isinstance(out, torch.Tensor):
        return (out,)
    return tuple(tensor for tensor in out if isinstance(tensor, torch.Tensor)) if isinstance(out, SEQUENCES) else ()


SEQUENCES = (list, tuple)
NO_TENSORS = frozenset([int, float, bool, str, torch.dtype, torch.device])
"""The types of most of an op's arguments that are no tensors."""

BROADCASTING = frozenset([*POINTWISE, "copy"])
"""Ops whose operands fit together by broadcasting."""

TURNING = frozenset(["transpose", "t", "unsqueeze", "squeeze", "as_strided", "resize", "swapaxes", "swapdims"])
"""Ops whose in-place variants change a tensor's shape and no value."""

FACTORIES = frozenset(
    ["zeros", "ones", "full", "arange", "linspace", "scalar_tensor", "eye", "tril_indices", "triu_indices"]
)


def finish(recorder: Recorder, real: Tensors, batch: int) -> ChannelGraph:
    """Freeze what the recorder collected."""
    sets = united(recorder.size, *recorder.joined())
    return ChannelGraph(
        tensors=real,
        size=recorder.size,
        known=tuple(recorder.known),
        sets=sets,
        vectors=dict(recorder.vectors),
        steps=tuple(recorder.steps),
        step_ops=tuple(recorder.step_ops),
        pins=tuple(recorder.pins),
        parts=tuple(recorder.parts),
        sums=tuple(recorder.sums),
        used=frozenset(recorder.used),
        activations=tuple(recorder.activations),
        paddings=tuple(recorder.paddings),
        counted=tuple(recorder.counted),
        ops=tuple(recorder.ops),
        macs=sum(step.macs for step in recorder.steps if isinstance(step, Reader | Depthwise)) // batch,
        batch=batch,
    )
