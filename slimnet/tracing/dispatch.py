"""The dispatch mode of a trace: every ATen op that a forward calls is sent to its row in the registry."""

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from slimnet.errors import TraceError
from slimnet.graph.channel_graph import Op
from slimnet.graph.data_run import Answer
from slimnet.graph.labels import Labels
from slimnet.torch_state.devices import to_common_device
from slimnet.torch_state.eager_mode import EagerMode
from slimnet.tracing import meta_shapes
from slimnet.tracing.accounting import Account
from slimnet.tracing.data_answers import AS_ARRAY, depends_on_data, may_ask, restored
from slimnet.tracing.data_dependence import note_stop
from slimnet.tracing.inplace_aliases import write_through
from slimnet.tracing.islands import Islands
from slimnet.tracing.literal_arguments import numbers_of
from slimnet.tracing.loose_tensors import LooseTensors
from slimnet.tracing.op_call import SEQUENCES, Call, is_composite, tensors_among
from slimnet.tracing.ops.registry import OPS, UNKNOWN, spec_of, unknown
from slimnet.tracing.recorder import Recorder
from slimnet.tracing.tensor_tags import Tag


class ChannelMode(EagerMode):
    """Sends every ATen op to its handler in the registry.

    `islands` goes on behind the first op that depends on data; without it the trace ends there, and has `ended`.
    """

    def __init__(self, recorder: Recorder, islands: Islands | None = None):
        super().__init__()
        self.recorder = recorder
        self.islands = islands
        self.ended = False
        self.account = Account(recorder)
        self.loose = LooseTensors()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name, functional = names(func)
        if name == "empty" and args[0] == [0] and kwargs.get("dtype") is torch.uint8:
            # The workspace that every BatchNorm allocates and that is never read.
            return meta_shapes.nothing(torch.uint8)
        spec = OPS.get(name, UNKNOWN)
        if spec.handler is None and torch.is_inference_mode_enabled() and is_composite(func):
            # Elsewhere torch takes such ops apart before they come here.
            with self:
                return func.decompose(*args, **kwargs)
        self.recorder.begin_op(sys._getframe(1))
        if self.ended:
            raise self.data_dependence("what is computed behind an error")
        args, kwargs, tensors = self.on_meta(args, kwargs)
        islands, answer = self.islands, None
        if islands is not None:
            answer = islands.answer(name) if may_ask(func, args) else None
            if islands.is_between:
                return self.between_pieces(islands, func, args, kwargs, tensors, answer)
            islands.check_fresh(tensors)
        if name == "index" and any(tensor.dtype is torch.bool for tensor in tensors):
            args = (args[0], self.positions(args[1]))
            tensors = tensors_among(args, kwargs)
        if name == "_local_scalar_dense":
            return self.scalar(tensors[0], answer)
        if functional is not None:
            return self.in_place(func, functional, args, kwargs, tensors)
        return self.run_op(Call(name, func, args, kwargs, (), tensors, spec), answer)

    def run_op(self, call: Call, answer: Answer | None) -> Any:
        """Run an op that returns new tensors on shapes alone, and record it; if it needs data, with its `answer`."""
        try:
            out = meta_shapes.run(call.func, call.spec.shape, call.args, call.kwargs)
        except Exception as error:
            if not depends_on_data(call.func, error):
                raise
            found = self.begin_islands(call.name, answer, f"the result of {call.name}", error)
            out = restored(found.result)
            self.note(call._replace(outputs=outputs_of(out)))
            return out
        call = call._replace(outputs=outputs_of(out))
        if overwrites(call.func):
            self.overwritten(call)
        else:
            self.handle(call)
        return out

    def begin_islands(self, op: str, answer: Answer | None, what: str, error: Exception | None = None) -> Answer:
        """Note that the forward depends on data from this op on, and go on with what it returned in a run on data.

        Raises:
            TraceError: the trace ends here, since there has been no such run, or a module that is followed reads data.
        """
        if self.recorder.stopped is None:
            place = note_stop(self.recorder, op)
            if self.islands is not None and answer is not None:
                self.islands.stop = place
                return answer
        self.ended = True
        raise self.data_dependence(what) from error

    def between_pieces(
        self,
        islands: Islands,
        func: Any,
        args: tuple,
        kwargs: dict,
        tensors: tuple[torch.Tensor, ...],
        answer: Answer | None,
    ) -> Any:
        """Call an op that runs behind the stop outside of the modules that are followed there."""
        name, functional = names(func)
        try:
            out = func(*args, **kwargs)
        except Exception as error:
            if answer is None:
                self.ended = True
                raise self.data_dependence(f"the result of {name}") from error
            out = restored(answer.result)
        used = func if functional is None else functional
        name = used.overloadpacket.__name__
        call = Call(name, used, args, kwargs, outputs_of(out), tensors, OPS.get(name, UNKNOWN))
        if not islands.takes_op(call, sys._getframe(2)):
            self.note(call)
            return out
        self.handle(call)
        if functional is not None:
            write_through(self.recorder, args[0], self.recorder.here(call))
        islands.took_op(call.outputs)
        return out

    def in_place(
        self, func: Any, functional: Any, args: tuple, kwargs: dict, tensors: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Record an in-place op as its functional variant, then renew every view of what it changed."""
        written = args[0]
        name = names(functional)[0]
        call = Call(name, functional, args, kwargs, (written,), tensors, OPS.get(name, UNKNOWN))
        if call.spec.reshapes_in_place:
            return self.reshaped(func, call)
        if call.spec.broadcasts:
            check_fit(written, tensors)
        self.handle(call)
        write_through(self.recorder, written, self.recorder.here(call))
        return written

    def reshaped(self, func: Any, call: Call) -> torch.Tensor:
        """Record an op that gives a tensor another shape in place: no value changes, so that views need no renewal."""
        out = call.func(*call.args, **call.kwargs)
        self.handle(call._replace(outputs=(out,)))
        func(*call.args, **call.kwargs)
        written = call.args[0]
        self.recorder.set(written, self.recorder.tag(out))
        return written

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
        """Give the outputs their labels and constants, by the op's handler."""
        recorder = self.recorder
        known = self.known_value(call)
        self.account.open(call)
        (call.spec.handler or unknown)(recorder, call)
        self.account.settle(call)
        if known is not None:
            for index, tensor in enumerate(call.outputs):
                recorder.set(tensor, recorder.tag(tensor)._replace(value=known(index)))
            self.loose.follow(call)
        self.note(call)
        if call.spec.shape is None:
            # It may return what it was given, or a view of it.
            for tensor in (*call.tensors, *call.outputs):
                recorder.note_storage(tensor)

    def on_meta(self, args: tuple, kwargs: dict) -> tuple[tuple, dict, tuple[torch.Tensor, ...]]:
        """The arguments with real tensors and device names replaced by meta ones, and the tensors among them."""
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": meta_shapes.META}
        tensors = tensors_among(args, kwargs)
        for tensor in tensors:
            if not tensor.is_meta:
                args, kwargs = pytree.tree_map_only(torch.Tensor, self.constant, (args, kwargs))
                return args, kwargs, tensors_among(args, kwargs)
        return args, kwargs, tensors

    def constant(self, tensor: torch.Tensor) -> torch.Tensor:
        """A meta stand-in for a real tensor that the forward uses, and that is none of the skeleton's.

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
        self.loose.add(stand_in, on_device=tensor.device.type != "cpu")
        return stand_in

    def known_value(self, call: Call) -> Callable[[int], Callable[[], torch.Tensor]] | None:
        """How to compute the outputs of an op whose tensors are all known; None for anything else."""
        sources = []
        for tensor in call.tensors:
            source = self.recorder.value(tensor)
            if source is None:
                return None
            sources.append(source)
        if not sources and not call.spec.factory:
            return None
        cache: list[Any] = []

        def compute(index: int) -> torch.Tensor:
            if not cache:
                with torch.no_grad():
                    # Without the device argument, which was meta, factories make their tensors on the CPU.
                    cache.append(call.run(to_common_device([source() for source in sources]), "device"))
            return cache[0][index] if isinstance(cache[0], list | tuple) else cache[0]

        return lambda index: lambda: compute(index)

    def positions(self, indices: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Indices with the positions that a known mask picks in the place of the mask."""
        found: list[torch.Tensor | None] = []
        for index in indices:
            mask = self.recorder.value(index) if index is not None and index.dtype is torch.bool else None
            found += [index] if mask is None else [self.constant(place) for place in mask().nonzero(as_tuple=True)]
        return found

    def scalar(self, tensor: torch.Tensor, answer: Answer | None) -> Any:
        """The number in a tensor: where it depends on the input, what it was in a run on data."""
        value = self.recorder.value(tensor)
        if value is None:
            return self.begin_islands("item", answer, "a tensor's value is read").result
        return value().item()

    def data_dependence(self, what: str) -> TraceError:
        """The error of a forward that depends on data before slimnet has seen any layer of it."""
        return TraceError(
            f"the forward depends on data: {what} in {self.recorder.where}; "
            "slimnet needs a forward whose ops do not depend on values"
        )

    def note(self, call: Call) -> None:
        """Remember the op and its parameters, so that a resized network that fails can be reported with its place."""
        recorder = self.recorder
        parameters, tags = recorder.parameters, recorder.tags
        touched: list[Labels] = []
        for tensor in call.tensors:
            if (name := parameters.get(id(tensor))) is not None:
                recorder.parameter_uses.append(name)
        for tensor in (*call.tensors, *call.outputs):
            if (entry := tags.get(id(tensor))) is not None:
                touched += entry[1].faces
        numbers = numbers_of(recorder, call) if touched else ()
        shape = tuple(call.outputs[0].shape) if touched and call.spec.infers_size else ()
        line = recorder.line if touched else ""
        recorder.ops.append(Op(call.name, recorder.module, line, tuple(touched), numbers, shape))


class ReadsMode(TorchFunctionMode):
    """Ends a trace where the code reads a tensor as an array of NumPy, which no op does: it depends on data there."""

    def __init__(self, channels: ChannelMode):
        super().__init__()
        self.channels = channels

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in AS_ARRAY and isinstance(args[0], torch.Tensor) and args[0].is_meta:
            self.channels.recorder.begin_op(sys._getframe(1))
            self.channels.begin_islands(func.__name__, None, "a tensor is read as an array")
        return func(*args, **(kwargs or {}))


@cache
def names(func: Any) -> tuple[str, Any]:
    """An op's name, and for an elementwise in-place op the op that computes what it writes, else None."""
    name = func.overloadpacket.__name__
    if not name.endswith("_") or name.startswith("_") or name.endswith("__"):
        return name, None
    overload = "int" if name == "transpose_" else func._overloadname  # the one whose functional form has another name
    return name, getattr(getattr(torch.ops.aten, name[:-1], None), overload, None)


@cache
def overwrites(func: Any) -> bool:
    """Whether an op writes into tensors that it was given, other than the statistics of a BatchNorm."""
    schema = func._schema
    return schema.is_mutable and (
        spec_of(func.overloadpacket.__name__).handler is None or any(a.is_out for a in schema.arguments)
    )


def check_fit(written: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
    """Refuse tensors that do not broadcast to the shape of the one that is written in place.

    Raises:
        RuntimeError: they do not.
    """
    sizes = [tensor.shape for tensor in tensors]
    differ = any(size != written.shape for size in sizes)
    if differ and meta_shapes.broadcast_shape(*sizes) != tuple(written.shape):
        raise RuntimeError(f"shapes {[tuple(size) for size in sizes]} do not fit in place")


def outputs_of(out: Any) -> tuple[torch.Tensor, ...]:
    """The tensors that an op returned, one or several."""
    if isinstance(out, torch.Tensor):
        return (out,)
    return tuple(tensor for tensor in out if isinstance(tensor, torch.Tensor)) if isinstance(out, SEQUENCES) else ()
