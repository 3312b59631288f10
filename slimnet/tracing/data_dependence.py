"""Where a forward begins to depend on data: what was computed until then is followed, what it reads from there stays.

A detector selects boxes by their scores. On meta tensors there are none. From the first op whose result depends on
values, the code can read only tensors that are alive at that moment. Their channels are pinned. Modules behind it are
followed by `islands.py`. Where a trace ends before the forward does, the parameters that the rest uses again are pinned
too, as seen in a run on the example inputs.
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

from slimnet.graph.channel_graph import ChannelGraph, Pin, Stop
from slimnet.graph.labels import Labels
from slimnet.graph.reasons import Kind, Place, Reason
from slimnet.tracing.recorder import Recorder

CONTAINERS = (tuple, list, dict, CellType, partial)
"""The types of what a recorder collects, as far as it may hold tensors; modules are not among them."""


def note_stop(recorder: Recorder, op: str) -> Place:
    """Note where the first op that depends on data is, and pin the channels of all tensors that are alive.

    To be called while the op is dispatched, when the arguments of all calls around it are still referenced.
    """
    reason = Reason(Kind.DATA_DEPENDENT, Place(op, recorder.module, recorder.line))
    read = alive(recorder)
    for labels in read:
        recorder.pin(labels, reason)
    recorder.stopped = Stop(reason.place, watched_modules(recorder, read))
    recorder.steps_in_front, recorder.activations_in_front = len(recorder.steps), len(recorder.activations)
    recorder.returned_in_front = len(recorder.returned)
    return reason.place


def alive(recorder: Recorder) -> list[Labels]:
    """The labels of all tensors to which anything but the recorder holds a reference.

    Parameters are always alive, and are not among them.
    """
    held = references_within(recorder)
    tagged = [tensor for tensor, tag in recorder.tags.values() if tag.faces and recorder.parameter(tensor) is None]
    # In C++ a view refers to its base.
    views = Counter(id(tensor._base) for tensor, _ in recorder.tags.values() if tensor._is_view())
    # While C++ holds a tensor besides Python, its Python object may have a reference more.
    alone, viewed = torch.empty(1, device="meta"), torch.empty(1, device="meta")
    view = viewed.view(1)
    unused, unused_but_viewed, *counts = [
        sys.getrefcount(tensor) - held[id(tensor)] for tensor in [alone, viewed, *tagged]
    ]
    del view
    found: list[Labels] = []
    for tensor, count in zip(tagged, counts, strict=True):
        in_cpp: int = tensor._use_count()  # type: ignore[attr-defined]
        most = unused if in_cpp == 1 else unused_but_viewed
        if count > most or in_cpp - views[id(tensor)] > 1:
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


def used_again(uses: Sequence[str], traced: Sequence[str]) -> tuple[str, ...]:
    """The parameters and buffers that a forward on data uses again after the end of a trace.

    `uses` are those that it uses, `traced` those that the trace has seen, in order. Where the forward on data uses
    others in that time, nothing is known of the order, and those that it uses more often are returned.
    """
    if list(uses[: len(traced)]) == list(traced):
        again = set(uses[len(traced) :])
    else:
        again = set(Counter(uses) - Counter(traced))
    return tuple(sorted(again & set(traced)))


def with_stop(graph: ChannelGraph, stop: Stop) -> ChannelGraph:
    """A graph with its stop, and with pins of all channels of the parameters that are used again behind its end."""
    reason = Reason(Kind.DATA_DEPENDENT, stop.place)
    own = [labels for (name, _), labels in graph.vectors.items() if name in stop.reused]
    pins = (Pin(labels, reason, read=False, op=len(graph.ops)) for labels in own)
    return replace(graph, stop=stop, pins=(*graph.pins, *pins))
