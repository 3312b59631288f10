"""In-place ops: a change of one tensor changes every view of the same memory, from that moment on."""

import numpy as np
import torch

from slimnet.graph import Value
from slimnet.reasons import Kind, Place, Reason
from slimnet.tracing.labels import Labels, varying_axes
from slimnet.tracing.ops.pointwise import known_scalar
from slimnet.tracing.recorder import Constant, Recorder, opaque, same
from slimnet.tracing.tag import Tag


def write_through(recorder: Recorder, written: torch.Tensor, before: Tag, where: Place) -> None:
    """Carry the new labels of a tensor that was changed in place to every other tensor that shares its memory.

    `before` is what was known about it before. A label that the write covered wholly is replaced; one that it covered
    in part (some rows of a plane) keeps its channel, and its constant only if the same was written.
    """
    after = recorder.tag(written)
    for other in recorder.sharing(written):
        if other is not written:
            recorder.set(other, renewed(recorder, other, written, before, after, where))


def renewed(
    recorder: Recorder, other: torch.Tensor, written: torch.Tensor, before: Tag, after: Tag, where: Place
) -> Tag:
    """What is known about a view after the memory it shares with `written` has changed."""
    tag = recorder.tag(other)
    if not after.faces and not tag.faces:
        return Tag(value=overwritten(other, written, tag, after))
    if not tag.faces and len(after.faces) == 1 and follows(after.faces[0], written, other):
        return Tag(
            (
                recorder.pointwise(
                    [after.faces[0]], beside(recorder, other, tag), reason=Reason(Kind.NO_CHANNELS, where)
                ),
            )
        )
    if len(tag.faces) == len(before.faces) == len(after.faces) == 1:
        return Tag((replaced(recorder, tag.faces[0], other, written, before.faces[0], after.faces[0], where),))
    recorder.pin_tensor(written, Reason(Kind.OVERWRITTEN_IN_PART, where))
    recorder.pin_tensor(other, Reason(Kind.OVERWRITTEN_IN_PART, where))
    return Tag(tuple(recorder.pointwise([face], opaque, reason=Reason(Kind.NO_CHANNELS, where)) for face in tag.faces))


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


def replaced(
    recorder: Recorder,
    face: Labels,
    other: torch.Tensor,
    written: torch.Tensor,
    before: Labels,
    after: Labels,
    where: Place,
) -> Labels:
    """The labels of a view with those of the written part renewed."""
    shape = np.broadcast_shapes(before.shape, after.shape)
    old, first = np.unique(np.broadcast_to(before, shape), return_index=True)
    new = np.broadcast_to(after, shape).reshape(-1)[first]
    place = np.minimum(np.searchsorted(old, face), old.size - 1)
    hit = (old[place] == face) & (face > 0)
    whole = old.size == int(np.prod(shape)) and written.numel() // int(np.prod(shape)) == other.numel() // face.size
    if not (hit.all() or np.isin(old, face).all() or agree(other, face, written, np.broadcast_to(before, shape))):
        # The same memory under labels of its own: it was written to by way of other views in the meantime.
        numbers = np.arange(face.size).reshape(face.shape)
        if face.shape == after.shape and agree(other, numbers, written, numbers):
            return recorder.pointwise([face, after], same, reason=Reason(Kind.NO_CHANNELS, where))
        recorder.pin(after, Reason(Kind.OVERWRITTEN_IN_PART, where))
        recorder.pin(face, Reason(Kind.OVERWRITTEN_IN_PART, where))
        return recorder.pointwise([face], opaque, reason=Reason(Kind.NO_CHANNELS, where))
    result = face.copy()
    if whole:
        result[hit] = new[place[hit]]
    elif hit.any():
        result[hit] = recorder.pointwise([face[hit], new[place[hit]]], same, reason=Reason(Kind.NO_CHANNELS, where))
    return result


def agree(other: torch.Tensor, face: Labels, written: torch.Tensor, before: Labels) -> bool:
    """Whether a view has the labels that a written part had, wherever the two share memory."""
    if other.dtype != written.dtype:
        return False
    memory = written.untyped_storage().nbytes() // written.element_size()
    held = torch.full((memory,), -1, device="cpu")
    held.as_strided(written.size(), written.stride(), written.storage_offset()).copy_(
        torch.from_numpy(before.copy()).expand(written.shape)
    )
    shared = held.as_strided(other.size(), other.stride(), other.storage_offset())
    return bool(((shared == -1) | (shared == torch.from_numpy(face.copy()))).all())


def beside(recorder: Recorder, other: torch.Tensor, tag: Tag) -> Constant:
    """The constants of channels that were written into a part of a tensor that had none, beside what it held."""
    if tag.empty:
        return same
    number = known_scalar(recorder, other)
    return opaque if number is None else lambda values: torch.where(values[0] == number, values[0], torch.nan)
