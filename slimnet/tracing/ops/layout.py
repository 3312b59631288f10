"""Ops that only move elements: the labels move by the same op."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch.utils import _pytree as pytree

from slimnet.graph.channel_graph import Constants, KnownTensor
from slimnet.graph.labels import Labels, align, compress, expand_fully, matching_runs, reshape, unique, varying_axes
from slimnet.graph.reasons import Kind
from slimnet.graph.sizes import Size
from slimnet.tracing.constant_rules import common_constant, unknown_constant
from slimnet.tracing.meta_shapes import cat
from slimnet.tracing.number_rules import along_axis, no_number, plane_padding
from slimnet.tracing.op_call import Call, OpSpec
from slimnet.tracing.op_rows import merge_rows, same_row
from slimnet.tracing.ops.splitting import divide, note_parts
from slimnet.tracing.recorder import Recorder
from slimnet.tracing.size_uses import note_shape, note_use, origins
from slimnet.tracing.tensor_tags import Tag


def view(recorder: Recorder, call: Call) -> None:
    """view, reshape, unflatten: a channel axis that splits must keep as many channels in every part."""
    x, out = call.tensors[0], call.outputs[0]
    if x.numel() == 0:
        recorder.pin_tensor(x, recorder.because(Kind.EMPTY, call))
        return
    faces = tuple(reshape(face, x.shape, out.shape) for face in recorder.tag(x).faces)
    for face in faces:
        for _, new_axes in matching_runs(x.shape, out.shape):
            split = [axis for axis in new_axes if face.shape[axis] > 1]
            if len(split) > 1:
                axes = varying_axes(face)
                free = tuple(axes.index(axis) for axis in (split[-1], *split[:-1]))
                note_parts(recorder, call, face.reshape([face.shape[axis] for axis in axes]), free)
    note_shape(recorder, faces, out.shape)
    recorder.set(out, Tag(faces, blank=recorder.tag(x).blank))


def permute(recorder: Recorder, call: Call) -> None:
    """permute, transpose, t: also of a weight, which stays known as its parameter."""
    x, out = call.tensors[0], call.outputs[0]
    tag = recorder.tag(x)
    order = axis_order(call, x.ndim)
    faces = tuple(face.transpose(order) for face in tag.faces)
    axes = tuple(tag.axes[a] for a in order) if tag.parameter else ()
    recorder.set(out, Tag(faces, tag.parameter, axes, tag.blank))


def axis_order(call: Call, ndim: int) -> list[int]:
    """The order of axes that permute, transpose or t asks for."""
    if call.name == "permute":
        return [axis % ndim for axis in call.args[1]]
    order = list(range(ndim))
    if call.name == "t":
        return order[::-1]
    first, second = call.args[1] % ndim, call.args[2] % ndim
    order[first], order[second] = order[second], order[first]
    return order


def unsqueeze(recorder: Recorder, call: Call) -> None:
    """A new axis of size 1."""
    x, out = call.tensors[0], call.outputs[0]
    axis = call.args[1] % out.ndim
    tag = recorder.tag(x)
    recorder.set(out, Tag(tuple(np.expand_dims(face, axis) for face in tag.faces), blank=tag.blank))


def squeeze(recorder: Recorder, call: Call) -> None:
    """Axes of size 1 disappear."""
    x, out = call.tensors[0], call.outputs[0]
    tag = recorder.tag(x)
    recorder.set(out, Tag(tuple(reshape(face, x.shape, out.shape) for face in tag.faces), blank=tag.blank))


def expand(recorder: Recorder, call: Call) -> None:
    """Repeats along axes of size 1; labels broadcast the same way."""
    x, out = call.tensors[0], call.outputs[0]
    tag = recorder.tag(x)
    follows = not tag.faces and x.ndim > 1 and x.shape[1] == 1
    recorder.set(out, Tag(tuple(align(face, out.ndim) for face in tag.faces), blank=tag.blank or follows))


def concatenate(recorder: Recorder, call: Call) -> None:
    """cat: labels follow each other along a channel axis, and are joined along any other."""
    tensors, out = call.tensors, call.outputs[0]
    axis = call.arg(1, "dim", 0) % out.ndim
    join_along(recorder, call, list(tensors), axis, [recorder.tag(tensor).faces for tensor in tensors])


def stack(recorder: Recorder, call: Call) -> None:
    """stack: cat along a new axis."""
    out = call.outputs[0]
    axis = call.arg(1, "dim", 0) % out.ndim
    faces = [tuple(np.expand_dims(face, axis) for face in recorder.tag(t).faces) for t in call.tensors]
    join_along(recorder, call, [t.unsqueeze(axis) for t in call.tensors], axis, faces)


def join_along(
    recorder: Recorder, call: Call, tensors: list[torch.Tensor], axis: int, faces: list[tuple[Labels, ...]]
) -> None:
    """Put the labels of several tensors one after the other along `axis`."""
    out = call.outputs[0]
    if any(len(own) > 1 for own in faces):
        pin_all(recorder, call, Kind.JOINED_WEIGHTS)
        return
    if not any(faces):
        recorder.set(out, Tag(blank=all(recorder.tag(t).blank for t in call.tensors)))
        return
    arrays = [own[0] if own else np.zeros((1,) * out.ndim, dtype=np.int64) for own in faces]
    stacked = call.name == "stack" or (all(faces) and all(tensor.shape[axis] == 1 for tensor in tensors))
    if has_channels_elsewhere(arrays, axis) and not stacked:
        merge(recorder, call, tensors, arrays)
    else:
        recorder.set(out, Tag((concatenated(arrays, axis, [tensor.shape[axis] for tensor in tensors]),)))


def has_channels_elsewhere(arrays: Sequence[Labels], axis: int) -> bool:
    """Whether some of these have channels, and none has them along `axis`."""
    return all(array.shape[axis] == 1 for array in arrays) and any(array.size > 1 for array in arrays)


def concatenated(arrays: Sequence[Labels], axis: int, sizes: Sequence[int]) -> Labels:
    """Label arrays one after the other along `axis`, on which each has the given size."""
    common = np.broadcast_shapes(*((*array.shape[:axis], 1, *array.shape[axis + 1 :]) for array in arrays))
    wide = [
        np.broadcast_to(array, (*common[:axis], size, *common[axis + 1 :]))
        for array, size in zip(arrays, sizes, strict=True)
    ]
    return compress(np.concatenate(wide, axis))


def merge(recorder: Recorder, call: Call, tensors: list[torch.Tensor], arrays: list[Labels]) -> None:
    """The same channels side by side along another axis: constant where all agree."""
    reason = recorder.because(Kind.JOINED, call)
    operands = [array for array, t in zip(arrays, tensors, strict=True) if array.size > 1 or not recorder.tag(t).blank]
    constant = common_constant if len(operands) == len(arrays) else unknown_constant
    recorder.set(call.outputs[0], Tag((recorder.pointwise(operands, constant, reason=reason),)))


def scatter_slice(recorder: Recorder, call: Call) -> None:
    """slice_scatter: a range of positions is overwritten with another tensor's."""
    scatter(recorder, call, recorder.tag(call.tensors[1]).faces)


def scatter_select(recorder: Recorder, call: Call) -> None:
    """select_scatter: one position is overwritten with a tensor that has no such axis."""
    axis = call.arg(2, "dim", 0) % call.tensors[0].ndim
    scatter(recorder, call, tuple(np.expand_dims(face, axis) for face in recorder.tag(call.tensors[1]).faces))


def scatter(recorder: Recorder, call: Call, written: tuple[Labels, ...]) -> None:
    """Some positions of the first tensor are overwritten with the second, whose labels along its axes are `written`."""
    axis = call.arg(2, "dim", 0) % call.tensors[0].ndim
    tags = [recorder.tag(tensor) for tensor in call.tensors[:2]]
    faces = [tags[0].faces, written]
    operands = [face for own in faces for face in own]
    if any(len(own) > 1 for own in faces) or any(face.shape[axis] > 1 for face in operands):
        pin_all(recorder, call, Kind.OVERWRITTEN)
    elif not operands:
        recorder.set(call.outputs[0], Tag(blank=all(tag.blank for tag in tags)))
    elif any(not own and not tag.blank for own, tag in zip(faces, tags, strict=True)):
        pin_all(recorder, call, Kind.OVERWRITTEN_WITH)
    else:
        constant = common_constant if len(operands) == len(tags) else unknown_constant
        reason = recorder.because(Kind.NO_CHANNELS, call)
        recorder.set(call.outputs[0], Tag((recorder.pointwise(operands, constant, reason=reason),)))


def copy(recorder: Recorder, call: Call) -> None:
    """copy: the source's values in the shape of the destination."""
    source, out = call.tensors[1], call.outputs[0]
    if overlap(source, out):
        # What is copied may have been overwritten before: it depends on the order in which torch goes through them.
        pin_all(recorder, call, Kind.OVERWRITTEN_IN_PART)
        faces = recorder.tag(source).faces
        reason = recorder.because(Kind.OVERWRITTEN_IN_PART, call)
        recorder.set(
            out, Tag(tuple(recorder.pointwise([align(f, out.ndim)], unknown_constant, reason=reason) for f in faces))
        )
        return
    tag = recorder.tag(source)
    value = tag.value if tag.blank or not out.is_floating_point() else None
    shape, dtype = out.shape, out.dtype
    recorder.set(
        out,
        Tag(
            tuple(align(face, out.ndim) for face in tag.faces),
            blank=tag.blank,
            value=None if value is None else lambda: value().to(dtype).expand(shape),
        ),
    )


def overlap(source: torch.Tensor, out: torch.Tensor) -> bool:
    """Whether two views of one memory may have some elements in common, other than each its own."""
    if source.untyped_storage()._cdata != out.untyped_storage()._cdata or source.dtype != out.dtype:
        return False
    if place_of(source) == place_of(out):
        return False
    memory = source.untyped_storage().nbytes() // source.element_size()
    held = torch.zeros(memory, dtype=torch.bool, device="cpu")
    held.as_strided(*place_of(out)).fill_(True)
    return bool(held.as_strided(*place_of(source)).any())


def place_of(tensor: torch.Tensor) -> tuple[torch.Size, tuple[int, ...], int]:
    """Where in its memory a tensor has its elements."""
    return tensor.shape, tensor.stride(), int(tensor.storage_offset())


def pad(recorder: Recorder, call: Call) -> None:
    """Zero padding: around the plane it frames each channel; on the channel axis it adds channels.

    Who pads by nothing at all has computed by how much: another input may be padded.
    """
    x, out = call.tensors[0], call.outputs[0]
    amounts, value = call.args[1], float(call.arg(2, "value", 0) or 0)
    padded = {x.ndim - 1 - i: (amounts[2 * i], amounts[2 * i + 1]) for i in range(len(amounts) // 2)}
    faces = recorder.tag(x).faces
    if len(faces) != 1:
        recorder.pin_tensor(x, recorder.because(Kind.PADDED, call))
        return
    face = faces[0]
    channel_axes = [axis for axis, amount in padded.items() if any(amount) and face.shape[axis] > 1]
    if not any(amounts) or any(any(amount) for axis, amount in padded.items() if axis not in channel_axes):
        face = recorder.pointwise(
            [face], lambda v: torch.where(v[0] == value, v[0], torch.nan), reason=recorder.because(Kind.PADDED, call)
        )
    sizes = origins(recorder, amounts)
    for axis in channel_axes:
        place = 2 * (x.ndim - 1 - axis)
        face = pad_channels(recorder, call, face, axis, sizes[place : place + 2])
    recorder.set(out, Tag((face,)))


def pad_channels(recorder: Recorder, call: Call, face: Labels, axis: int, sizes: Sequence[Size | None]) -> Labels:
    """Constant channels before and after; they can be removed where their numbers are attributes or follow widths."""
    place = 2 * (call.tensors[0].ndim - 1 - axis)
    amount = call.args[1][place : place + 2]
    value = float(call.arg(2, "value", 0) or 0)
    before, after = recorder.fresh((max(0, amount[0]),)), recorder.fresh((max(0, amount[1]),))
    for added in (before, after):
        recorder.known.append(KnownTensor(added, torch.full((added.size,), value, dtype=torch.float64, device="cpu")))
    added_labels = np.concatenate([before, after])
    owned = all(size is not None for size, count in zip(sizes, amount, strict=True) if count)
    if owned and min(amount) >= 0 and set(varying_axes(face)) == {axis}:
        recorder.paddings.append(added_labels)
        for labels, size in zip((before, after), sizes, strict=True):
            note_use(recorder, labels, 0, size)
    else:
        reason = recorder.because(Kind.PADDED_CHANNELS, call)
        recorder.pin(np.concatenate([added_labels, face.reshape(-1)]), reason)
    shapes = [1] * face.ndim
    shapes[axis] = -1
    wide = [
        np.broadcast_to(a.reshape(shapes), [a.size if i == axis else n for i, n in enumerate(face.shape)])
        for a in (before, after)
    ]
    return np.concatenate([wide[0], face, wide[1]], axis)


def pin_all(recorder: Recorder, call: Call, kind: Kind) -> None:
    """Pin every channel the op touches; its output's channels are unknown."""
    for tensor in call.tensors:
        recorder.pin_tensor(tensor, recorder.because(kind, call))


def same_op(recorder: Recorder, call: Call) -> None:
    """Any other op that only moves elements, applied to the fully expanded labels."""
    x, out = call.tensors[0], call.outputs[0]
    faces = []
    for face in recorder.tag(x).faces:
        labels = expand_fully(face, x.shape)
        args, kwargs = pytree.tree_map_only(torch.Tensor, partial(replaced, labels), (call.args, call.kwargs))
        faces.append(compress(call.func(*args, **kwargs).numpy()))
    recorder.set(out, Tag(tuple(faces)))


def roll(recorder: Recorder, call: Call) -> None:
    """roll: channels move one place each; where they stand with their planes, a part of a plane would move away."""
    x, dims = call.tensors[0], call.arg(2, "dims", ())
    axes = {axis % x.ndim for axis in dims} if dims else set(range(x.ndim))
    for face in recorder.tag(x).faces:
        moved = [axis for axis in varying_axes(face) if axis in axes]
        if moved and (not dims or unique(face).size < face.size or len(varying_axes(face)) > 1):
            recorder.pin(face, recorder.because(Kind.NEIGHBOURS, call))
    same_op(recorder, call)


def shuffle_channels(recorder: Recorder, call: Call) -> None:
    """channel_shuffle: as many channels stay in every group."""
    x, groups = call.args
    for face in recorder.tag(x).faces:
        if set(varying_axes(face)) == {1}:
            note_parts(recorder, call, face.reshape(groups, -1), (1,))
    same_op(recorder, call)


def glu(recorder: Recorder, call: Call) -> None:
    """glu: the first half of an axis, scaled by the sigmoid of the second."""
    x, out = call.tensors[0], call.outputs[0]
    axis = call.arg(1, "dim", -1) % x.ndim
    faces = recorder.tag(x).faces
    if len(faces) > 1:
        pin_all(recorder, call, Kind.GATED_WEIGHT)
        return
    labels = []
    for face in faces:
        halves = [face, face]
        if face.shape[axis] > 1:
            divide(recorder, call, face, axis, [out.shape[axis]] * 2)
            halves = np.split(face, 2, axis)
        labels.append(recorder.pointwise(halves, gate, reason=recorder.because(Kind.NO_CHANNELS, call)))
    recorder.set(out, Tag(tuple(labels)))


def gate(values: Sequence[Constants]) -> Constants:
    """A value scaled by a sigmoid; zero stays zero whatever scales it."""
    return torch.where(values[0] == 0, values[0], values[0] * torch.sigmoid(values[1]))


def replaced(new: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """`new` in the place of another tensor."""
    return new


VIEW = OpSpec(view, numbers=no_number, takes_sizes=True, infers_size=True)
MOVE = OpSpec(same_op)

LAYOUT_OPS = merge_rows(
    same_row(VIEW._replace(width_free=True, layout_dependent=True), "view", "_unsafe_view"),
    {
        "_reshape_alias": VIEW._replace(layout_dependent=True),
        "reshape": VIEW,
        "permute": OpSpec(permute),
        "transpose": OpSpec(permute, reshapes_in_place=True),
        "t": OpSpec(permute, width_free=True, layout_dependent=True, reshapes_in_place=True),
        "unsqueeze": OpSpec(unsqueeze, layout_dependent=True, reshapes_in_place=True),
        "squeeze": OpSpec(squeeze, layout_dependent=True, reshapes_in_place=True),
        "expand": OpSpec(expand, numbers=no_number, takes_sizes=True, layout_dependent=True),
        "cat": OpSpec(concatenate, shape=cat, width_free=True, takes_sizes=True),
        "stack": OpSpec(stack),
        "slice_scatter": OpSpec(scatter_slice, numbers=along_axis(2), takes_sizes=True),
        "select_scatter": OpSpec(scatter_select, numbers=along_axis(2), takes_sizes=True),
        "copy": OpSpec(copy, uses="others", broadcasts=True),
        "constant_pad_nd": OpSpec(pad, numbers=plane_padding, uses="part", takes_sizes=True),
        "glu": OpSpec(glu),
        "roll": OpSpec(roll),
        "repeat": OpSpec(same_op, numbers=no_number, takes_sizes=True),
        "as_strided": OpSpec(same_op, numbers=no_number, uses="part", takes_sizes=True, reshapes_in_place=True),
        "unfold": OpSpec(same_op, uses="part"),
        "resize": OpSpec(numbers=no_number, reshapes_in_place=True),
    },
    same_row(OpSpec(shuffle_channels, numbers=no_number), "channel_shuffle", "native_channel_shuffle"),
    same_row(MOVE, "pixel_shuffle", "pixel_unshuffle", "flip", "rot90"),
)
