"""In-place ops: a change of one tensor changes every view of the same memory, from that moment on."""

import numpy as np
import torch

from slimnet.graph.channel_graph import Value
from slimnet.graph.labels import Labels, compress, varying_axes
from slimnet.graph.reasons import Kind, Place, Reason
from slimnet.tracing.constant_rules import common_constant, unknown_constant
from slimnet.tracing.ops.elementwise import known_scalar
from slimnet.tracing.ops.layout import place_of
from slimnet.tracing.recorder import Constant, Recorder
from slimnet.tracing.tensor_tags import Tag


def write_through(recorder: Recorder, written: torch.Tensor, where: Place) -> None:
    """Carry the new labels of a tensor that was changed in place to every other tensor that shares its memory.

    A position that the write covered wholly has the new label; one that it covered in part (some rows of a plane) keeps
    its channel, and its constant only if the same was written.
    """
    after = recorder.tag(written)
    for other in recorder.sharing(written) if written.numel() else ():
        if other is not written:
            recorder.set(other, renewed(recorder, other, written, after, where))


def renewed(recorder: Recorder, other: torch.Tensor, written: torch.Tensor, after: Tag, where: Place) -> Tag:
    """What is known about a view after the memory it shares with `written` has changed."""
    tag = recorder.tag(other)
    if not after.faces and not tag.faces:
        return Tag(value=overwritten(other, written, tag, after))
    same = same_place(other, written) and other.dtype == written.dtype
    if same and len(after.faces) > 1:
        # A weight that was written through `weight.data` is the result of the op now, and no parameter any more.
        return Tag(after.faces, value=after.value)
    new = labels_within(other, written, tag, after)
    if new is not None and (new < 0).all():
        return tag
    if new is not None and (new >= 0).all():
        return Tag((compress(new),), value=after.value if same else None)
    reason = Reason(Kind.NO_CHANNELS, where)
    if not tag.faces and len(after.faces) == 1 and follows(after.faces[0], written, other):
        return Tag((recorder.pointwise([after.faces[0]], beside(recorder, other, tag), reason=reason),))
    face = replaced(recorder, tag.faces[0], new, reason) if new is not None and tag.faces else None
    if face is not None:
        return Tag((face,))
    recorder.pin_tensor(written, Reason(Kind.OVERWRITTEN_IN_PART, where))
    recorder.pin_tensor(other, Reason(Kind.OVERWRITTEN_IN_PART, where))
    return Tag(tuple(recorder.pointwise([face], unknown_constant, reason=reason) for face in tag.faces))


def labels_within(other: torch.Tensor, written: torch.Tensor, tag: Tag, after: Tag) -> Labels | None:
    """The labels of what was written, at each element of another tensor, -1 where it was not written.

    None where elements cannot be compared one by one. An op that reshapes what it has written, such as transpose_,
    leaves labels that do not fit it; it has kept them all.
    """
    fits = len(after.faces) == 1 and broadcasts(after.faces[0], written)
    if not fits or len(tag.faces) > 1 or other.dtype != written.dtype:
        return None
    return after.faces[0] if same_place(other, written) else seen_through(other, written, after.faces[0])


FEW = 4096
"""How many elements a tensor of sizes may share its memory with, to be followed element by element."""


def overwritten(other: torch.Tensor, written: torch.Tensor, tag: Tag, after: Tag) -> Value | None:
    """How to compute integers of which some were overwritten with known ones: the sizes of feature maps, usually."""
    memory = written.untyped_storage().nbytes() // written.element_size()
    if after.value is None or other.dtype != written.dtype or written.is_floating_point() or memory > FEW:
        return None
    if tag.value is None and not tag.empty:
        return None
    old, new = tag.value, after.value
    here, there = (other.size(), other.stride(), other.storage_offset()), written.size()
    place = written.stride(), written.storage_offset()

    def compute() -> torch.Tensor:
        held = torch.zeros(memory, dtype=other.dtype, device="cpu")
        if old is not None:
            held.as_strided(*here).copy_(old())
        held.as_strided(there, *place).copy_(new())
        return held.as_strided(*here).clone()

    return compute


def follows(face: Labels, written: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether the channel axes of a written part are whole axes of the tensor it is a part of."""
    same_rank = written.ndim == other.ndim
    return same_rank and all(written.shape[axis] == other.shape[axis] for axis in varying_axes(face))


def same_place(other: torch.Tensor, written: torch.Tensor) -> bool:
    """Whether two tensors are the same elements in the same order."""
    return place_of(other) == place_of(written)


def broadcasts(labels: Labels, tensor: torch.Tensor) -> bool:
    """Whether labels have as many axes as a tensor, each as long or 1."""
    sizes = zip(labels.shape, tensor.shape, strict=False)
    return labels.ndim == tensor.ndim and all(one in (1, other) for one, other in sizes)


def seen_through(other: torch.Tensor, written: torch.Tensor, labels: Labels) -> Labels:
    """The labels of what was written, at each element of another tensor that has the same memory; -1 elsewhere."""
    memory = written.untyped_storage().nbytes() // written.element_size()
    held = torch.full((memory,), -1, dtype=torch.int32, device="cpu")
    held.as_strided(*place_of(written)).copy_(torch.from_numpy(labels.astype(np.int32)).expand(written.shape))
    return held.as_strided(*place_of(other)).numpy().astype(np.int64)


def replaced(recorder: Recorder, face: Labels, new: Labels, reason: Reason) -> Labels | None:
    """The labels of a view of which a part was written, `new` for each of its elements, -1 where it was not.

    None where several channels were written to where it has one.
    """
    within = tuple(axis for axis in range(new.ndim) if face.shape[axis] == 1)
    last = new.max(within, keepdims=True)
    first = np.where(new < 0, np.iinfo(np.int64).max, new).min(within, keepdims=True)
    touched = last >= 0
    if (first != last)[touched].any():
        return None
    partly = touched & (new.min(within, keepdims=True) < 0)
    result = np.where(touched, last, face)
    if partly.any():
        result[partly] = recorder.pointwise([face[partly], last[partly]], common_constant, reason=reason)
    return result


def beside(recorder: Recorder, other: torch.Tensor, tag: Tag) -> Constant:
    """The constants of channels that were written into a part of a tensor that had none, beside what it held."""
    if tag.empty:
        return common_constant
    number = known_scalar(recorder, other)
    return unknown_constant if number is None else lambda values: torch.where(values[0] == number, values[0], torch.nan)
