"""Ops that divide an axis of channels: into equal parts, or by positions that may be numbers in the code."""

import math
from collections.abc import Sequence

import numpy as np

from slimnet.graph.channel_graph import SplitAxis
from slimnet.graph.labels import Labels, compress, varying_axes
from slimnet.graph.reasons import Kind
from slimnet.graph.sizes import Formula, Size, attributes_of
from slimnet.tracing.number_rules import along_axis, no_number
from slimnet.tracing.op_call import Call, OpSpec
from slimnet.tracing.op_rows import merge_rows, same_row
from slimnet.tracing.recorder import Recorder
from slimnet.tracing.size_uses import are_free, note_use, origin, origins
from slimnet.tracing.tensor_tags import Tag


def note_parts(
    recorder: Recorder, call: Call, grid: Labels, free: tuple[int, ...], fixed: Labels | None = None
) -> None:
    """Remember that an op divides an axis of channels: its labels on a grid, and which axes of it may be narrower."""
    recorder.parts.append(SplitAxis(grid, recorder.here(call), len(recorder.ops), free, fixed))


def take_slice(recorder: Recorder, call: Call) -> None:
    """x[:, a:b]: free along axes without channels; along a channel axis the bounds are numbers in the code."""
    x, out = call.tensors[0], call.outputs[0]
    axis = call.arg(1, "dim", 0) % x.ndim
    taken = slice(call.arg(2, "start"), call.arg(3, "end"), call.arg(4, "step", 1))
    tag = recorder.tag(x)
    faces = []
    for face in tag.faces:
        if face.shape[axis] > 1 and out.shape[axis] != x.shape[axis]:
            if varying_axes(face) == (axis,):
                note_slice(recorder, call, face.reshape(-1), taken)
                note_bounds(recorder, face.reshape(-1), taken)
            else:
                recorder.pin(face, recorder.because(Kind.SLICED, call))
            face = compress(face[(*[slice(None)] * axis, taken)])
        faces.append(face)
    recorder.set(out, Tag(tuple(faces), blank=tag.blank))


MOST_PARTS = 4
"""Into how many parts bounds are thought to divide an axis, rather than being numbers in the code."""


def note_slice(recorder: Recorder, call: Call, labels: Labels, taken: slice) -> None:
    """x[:, a:b:c] of channels `(C,)`: every nth one, one of equal parts, or what numbers in the code say."""
    start, end, step = taken.indices(labels.size)
    if step > 1:
        if labels.size % step == 0 and start < step and end > labels.size - step + start:
            note_parts(recorder, call, labels.reshape(-1, step), (0,))
        else:
            recorder.pin(labels, recorder.because(Kind.SLICED, call))
        return
    fixed = labels[counted(taken, labels.size)]
    if any(size is not None and attributes_of(size) for size in bounds_of(recorder, taken)):
        note_parts(recorder, call, labels.reshape(1, -1), (1,), fixed)
        return
    part = math.gcd(labels.size, start, end)
    equal = part > 1 and labels.size // part <= MOST_PARTS
    grid = labels.reshape(-1, part) if equal else labels.reshape(1, -1)
    note_parts(recorder, call, grid, (1,) if equal else (), fixed)


def bounds_of(recorder: Recorder, taken: slice) -> list[Size | None]:
    """Where the bounds of a slice come from."""
    return [origin(recorder, bound) if recorder.given else None for bound in (taken.start, taken.stop)]


def note_bounds(recorder: Recorder, labels: Labels, taken: slice) -> None:
    """Record the bounds of a slice of channels `(C,)`: how many come before them, or behind them from the end on."""
    for bound, size in zip((taken.start, taken.stop), bounds_of(recorder, taken), strict=True):
        if size is not None and 0 < abs(bound) < labels.size:
            if bound > 0:
                note_use(recorder, labels[:bound], 0, size)
            else:
                note_use(recorder, labels[bound:], 0, Formula("sub", 0, size))


def counted(taken: slice, size: int) -> np.ndarray:
    """The positions that must stay where a slice's bounds are numbers: all up to them, from the end they count from."""
    start, end = taken.start or 0, size if taken.stop is None else taken.stop
    positions = np.arange(size)
    last = min(end, size) if 0 <= end < size else max(start, 0)
    first = size + min([bound for bound in (start, end) if bound < 0], default=0)
    return (positions < last) | (positions >= first)


def select(recorder: Recorder, call: Call) -> None:
    """x[:, i]: one position of an axis."""
    x, out = call.tensors[0], call.outputs[0]
    axis, index = call.args[1] % x.ndim, call.args[2]
    tag = recorder.tag(x)
    faces = []
    for face in tag.faces:
        if varying_axes(face) == (axis,):
            labels = face.reshape(-1)
            fixed = labels[: index + 1] if index >= 0 else labels[index:]
            note_parts(recorder, call, labels.reshape(1, -1), (), fixed)
        elif face.shape[axis] > 1:
            recorder.pin(face, recorder.because(Kind.SELECTED, call))
        faces.append(face.take(index if face.shape[axis] > 1 else 0, axis))
    recorder.set(out, Tag(tuple(faces), blank=tag.blank))


def split(recorder: Recorder, call: Call) -> None:
    """split, chunk, split_with_sizes: parts of equal size stay equal; unequal sizes are numbers in the code."""
    x, outs = call.tensors[0], call.outputs
    axis = call.arg(2, "dim", 0) % x.ndim
    sizes = [out.shape[axis] for out in outs]
    bounds = np.cumsum([0, *sizes])
    given = call.args[1]
    found = origins(recorder, given) if isinstance(given, list | tuple) else [origin(recorder, given)] * len(outs)
    pieces: list[list[Labels]] = [[] for _ in outs]
    for face in recorder.tag(x).faces:
        if face.shape[axis] > 1 and len(outs) > 1:
            divide(recorder, call, face, axis, sizes, found)
            for place, (size, start) in enumerate(zip(sizes, bounds[:-1], strict=True)):
                if size == sizes[0] or isinstance(given, list | tuple):
                    note_use(recorder, face.take(range(start, start + size), axis), axis, found[place])
        for piece, start, end in zip(pieces, bounds[:-1], bounds[1:], strict=True):
            piece.append(face.take(range(start, end), axis) if face.shape[axis] > 1 else face)
    for out, piece in zip(outs, pieces, strict=True):
        recorder.set(out, Tag(tuple(piece)))


def divide(
    recorder: Recorder, call: Call, face: Labels, axis: int, sizes: Sequence[int], found: Sequence[Size | None] = ()
) -> None:
    """A channel axis is divided: note the equal parts; unequal ones are pinned, unless attributes say how many."""
    part = math.gcd(*sizes)
    several = len(set(sizes)) > 1 or len(set(found)) > 1 or set(varying_axes(face)) != {axis}
    if several and found and are_free(found):
        for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
            labels = face.take(range(start, start + size), axis)
            rows = np.moveaxis(labels, axis, -1).reshape(-1, size)
            note_parts(recorder, call, rows, (1,), labels.reshape(-1))
    elif set(varying_axes(face)) != {axis}:
        recorder.pin(face, recorder.because(Kind.SPLIT, call))
    elif len(set(sizes)) == 1:
        note_parts(recorder, call, face.reshape(len(sizes), -1), (1, 0))
    elif part > 1 and face.size // part <= MOST_PARTS:
        note_parts(recorder, call, face.reshape(-1, part), (1,))
    else:
        recorder.pin(face, recorder.because(Kind.SPLIT, call))


def unbind(recorder: Recorder, call: Call) -> None:
    """One tensor for each position of an axis."""
    x = call.tensors[0]
    axis = call.arg(1, "dim", 0) % x.ndim
    for face in recorder.tag(x).faces:
        if face.shape[axis] > 1 and set(varying_axes(face)) == {axis}:
            recorder.pin(face, recorder.because(Kind.SELECTED, call))
    for index, out in enumerate(call.outputs):
        faces = (face.take(index if face.shape[axis] > 1 else 0, axis) for face in recorder.tag(x).faces)
        recorder.set(out, Tag(tuple(faces)))


SPLITTING_OPS = merge_rows(
    {
        "slice": OpSpec(take_slice, numbers=along_axis(1), uses="part", takes_sizes=True),
        "select": OpSpec(select, numbers=along_axis(1), uses="part", takes_sizes=True),
        "unbind": OpSpec(unbind, takes_sizes=True),
    },
    same_row(OpSpec(split, numbers=no_number, takes_sizes=True), "split", "split_with_sizes"),
    same_row(OpSpec(split, numbers=no_number, takes_sizes=True), "unsafe_split", "unsafe_split_with_sizes"),
)
