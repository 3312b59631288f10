"""Where a forward begins to depend on data: what was computed until then is followed, what it reads from there stays.

A detector selects boxes by their scores. On meta tensors there are none, so the trace ends at the first op whose result
depends on values. From there on the code can read only tensors that are alive at that moment. Their channels are
pinned, and so are those of parameters that the rest of the forward uses again, as seen in a run on the example inputs.
"""

import gc
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import CellType, FunctionType
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from slimnet.errors import SlimnetError
from slimnet.graph.channel_graph import ChannelGraph, Pin, Stop
from slimnet.graph.labels import Labels
from slimnet.graph.reasons import Kind, Place, Reason
from slimnet.modules.copying import eval_copy
from slimnet.modules.example_inputs import Inputs
from slimnet.modules.network import Network
from slimnet.modules.tensors import Named
from slimnet.torch_state.devices import uncompiled
from slimnet.torch_state.random_state import random_numbers_kept
from slimnet.tracing.op_call import tensors_among
from slimnet.tracing.recorder import Recorder

TAGS = frozenset([torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output])
"""torch's tags of ops whose result depends on values."""

CONTAINERS = (tuple, list, dict, CellType, partial)
"""The types of what a recorder collects, as far as it may hold tensors; modules are not among them."""


def depends_on_data(func: Any, error: Exception) -> bool:
    """Whether an op raised on meta tensors since its result, or the shape of it, depends on values."""
    if not TAGS.isdisjoint(func.tags):
        return isinstance(error, NotImplementedError) or "meta" in str(error)
    return "meta Tensors (as opposed to FakeTensors)" in str(error) or "data-dependent" in str(error)


def stop_at(recorder: Recorder, op: str, error: SlimnetError) -> SlimnetError:
    """End the trace at an op that depends on data, and pin the channels of all tensors that are alive.

    To be called while the op is dispatched, when the arguments of all calls around it are still referenced. The error
    is returned, to be raised.
    """
    reason = Reason(Kind.DATA_DEPENDENT, Place(op, recorder.module, recorder.line))
    read = alive(recorder)
    for labels in read:
        recorder.pin(labels, reason)
    recorder.stopped = Stop(reason.place, watched_modules(recorder, read))
    return error


def alive(recorder: Recorder) -> list[Labels]:
    """The labels of all tensors to which anything but the recorder holds a reference.

    Parameters are always alive, and are not among them.
    """
    held = references_within(recorder)
    tagged = [tensor for tensor, tag in recorder.tags.values() if tag.faces and recorder.parameter(tensor) is None]
    # In C++ a view refers to its base.
    views = Counter(id(tensor._base) for tensor, _ in recorder.tags.values() if tensor._is_view())
    tensors = [torch.empty(0, device="meta"), *tagged]
    unused, *counts = [sys.getrefcount(tensor) - held[id(tensor)] for tensor in tensors]
    found: list[Labels] = []
    for tensor, count in zip(tagged, counts, strict=True):
        # One of the references of `tagged` is that of the list, which the first tensor has not.
        in_cpp: int = tensor._use_count() - views[id(tensor)]  # type: ignore[attr-defined]
        if count - 1 > unused or in_cpp > 1:
            found += recorder.tag(tensor).faces
    return found


def references_within(recorder: Recorder) -> Counter[int]:
    """How many references to each tensor, by its id, are held by what a recorder has collected."""
    held: Counter[int] = Counter()
    seen: set[int] = set()
    waiting: list[Any] = [vars(recorder)]
    while waiting:
        for each in gc.get_referents(waiting.pop()):
            if isinstance(each, torch.Tensor):
                held[id(each)] += 1
            elif isinstance(each, FunctionType) and each.__closure__ and id(each.__closure__) not in seen:
                # Not what it refers to beyond that: its globals are everybody's.
                seen.add(id(each.__closure__))
                waiting.append(each.__closure__)
            elif isinstance(each, CONTAINERS) and id(each) not in seen:
                seen.add(id(each))
                waiting.append(each)
    return held


def watched_modules(recorder: Recorder, read: Sequence[Labels]) -> tuple[str, ...]:
    """The largest modules that ran to their end before the stop and returned nothing but what is `read` behind it."""
    known = np.zeros(recorder.size, dtype=bool)
    for labels in read:
        known[labels] = True
    running = set(recorder.path)
    found: dict[str, bool] = {}
    for path, tensors in recorder.returned:
        if parent_of(path) in running and path not in running:
            faces = [face for tensor in tensors for face in recorder.tag(tensor).faces]
            whole = bool(faces) and all(known[face].all() for face in faces)
            found[path] = whole and found.get(path, True)
    return tuple(path for path, whole in found.items() if whole)


def parent_of(path: str) -> str | None:
    """The module around another one; None for the network itself."""
    return path.rpartition(".")[0] if path else None


class ParameterUses(TorchDispatchMode):
    """Lists the names of the parameters and buffers that ops take, in the order of the ops."""

    def __init__(self, tensors: Named):
        super().__init__()
        self.names = {id(tensor): name for name, tensor in reversed(tensors.items())}
        self.uses: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        self.uses += [self.names[id(tensor)] for tensor in tensors_among(args, kwargs) if id(tensor) in self.names]
        return func(*args, **kwargs)


def used_again(network: Network, inputs: Inputs, traced: Sequence[str]) -> tuple[str, ...]:
    """The parameters and buffers that a forward on data uses again after the stop.

    `traced` are those used up to the stop, in order. Where the forward on data uses others in that time, nothing is
    known of the order, and those that it uses more often are returned.
    """
    copy = Network.of(eval_copy(network))
    with torch.no_grad(), uncompiled(), random_numbers_kept(copy.module), ParameterUses(copy.named) as found:
        inputs.call(copy.module)
    if found.uses[: len(traced)] == list(traced):
        again = set(found.uses[len(traced) :])
    else:
        again = set(Counter(found.uses) - Counter(traced))
    return tuple(sorted(again & set(traced)))


def with_reused(graph: ChannelGraph, stop: Stop) -> ChannelGraph:
    """A graph with its stop, and with pins of all channels of the parameters that are used again behind it."""
    reason = Reason(Kind.DATA_DEPENDENT, stop.place)
    own = [labels for (name, _), labels in graph.vectors.items() if name in stop.reused]
    pins = (Pin(labels, reason, read=False, op=len(graph.ops)) for labels in own)
    return replace(graph, stop=stop, pins=(*graph.pins, *pins))
