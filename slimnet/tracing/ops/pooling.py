"""Pooling, resizing and reductions: channels stay themselves while their planes shrink or grow."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from slimnet.graph import Constants
from slimnet.reasons import Kind, Reason
from slimnet.tracing.labels import Labels, varying_axes
from slimnet.tracing.ops.pointwise import elementwise
from slimnet.tracing.recorder import Call, Constant, Recorder, all_zero, opaque, zero_only
from slimnet.tracing.tag import Tag

PLANE_AXES = {"1d": 1, "2d": 2, "3d": 3}


def plane_axes(call: Call, x: torch.Tensor) -> int:
    """How many trailing axes an op works on, read off its name."""
    return next((count for suffix, count in PLANE_AXES.items() if suffix in call.name), x.ndim - 2)


def keep_constant(values: Sequence[Constants]) -> Constants:
    """A constant plane stays that constant."""
    return values[0]


def pool(recorder: Recorder, call: Call) -> None:
    """Pooling and interpolation that map a constant plane to the same constant."""
    resample(recorder, call, None)


def average_pool(recorder: Recorder, call: Call) -> None:
    """Average pooling; with counted zero padding or another divisor only zero stays constant."""
    padding = call.arg(3, "padding", 0)
    padded = any(padding) if isinstance(padding, list | tuple) else bool(padding)
    counted = padded and call.arg(5, "count_include_pad", True)
    scaled = call.arg(6, "divisor_override") is not None
    resample(recorder, call, zero_only if counted or scaled else None)


def resample(recorder: Recorder, call: Call, constant: Constant | None) -> None:
    """Give the output the channels of the input; labels that change over the plane are joined first."""
    x = call.tensors[0]
    tag = recorder.tag(x)
    if not tag.faces:
        return
    where = recorder.because(Kind.POOLED, call)
    axis = x.ndim - plane_axes(call, x) - 1
    face = tag.faces[0]
    if len(tag.faces) > 1 or any(a > axis for a in varying_axes(face)):
        vector = recorder.channels(x, axis, where)
        if vector is None:
            return
        shape = [1] * x.ndim
        shape[axis] = -1
        face = vector.reshape(shape)
    if constant is not None:
        face = recorder.pointwise([face], constant, reason=where)
    finish(recorder, call, [face])


def reduced_axes(call: Call, x: torch.Tensor) -> list[int]:
    """The axes a reduction runs over; a norm has its order before them."""
    dim = call.arg(2 if "norm" in call.name else 1, "dim")
    if dim is None or dim == []:
        return list(range(x.ndim))
    return [d % x.ndim for d in (dim if isinstance(dim, list | tuple) else [dim])]


def average(recorder: Recorder, call: Call) -> None:
    """mean, amax, amin, max, min: a constant channel keeps its value."""
    if len(call.tensors) == 2:
        elementwise(recorder, call)
    else:
        reduce(recorder, call, keep_constant, REDUCED[call.name])


def total(recorder: Recorder, call: Call) -> None:
    """sum: of a plane zero stays zero; how large its sum is otherwise depends on the size of the input."""
    x = call.tensors[0]
    axes = set(reduced_axes(call, x))
    faces = recorder.tag(x).faces
    counted = axes.intersection(varying_axes(faces[0])) if len(faces) == 1 else axes
    added = REDUCED["sum"] if counted == axes else all_zero
    reduce(recorder, call, zero_only, added)


def statistic(recorder: Recorder, call: Call) -> None:
    """Any other reduction: nothing is known of its value."""
    reduce(recorder, call, opaque, opaque)


def deviation(recorder: Recorder, call: Call) -> None:
    """var, std: what is constant over a plane does not deviate from its mean."""
    reduce(recorder, call, lambda values: values[0] * 0, opaque)


def norm(recorder: Recorder, call: Call) -> None:
    """A norm: that of zeros is zero, and zeros add nothing to it unless it counts or takes the smallest."""
    order = call.arg(1, "ord", 2)
    usual = isinstance(order, int | float) and order > 0
    reduce(recorder, call, zero_only if usual else opaque, all_zero if usual else opaque)


def kind_of(call: Call) -> str | None:
    """What a reduction makes of channels, if they need not all be there."""
    if call.name in ("amax", "max"):
        return "max"
    order = call.arg(1, "ord", 2)
    if call.name == "sum" or ("norm" in call.name and isinstance(order, int | float) and order > 0):
        return "sum"
    return "mean" if call.name == "mean" else None


def reduce(recorder: Recorder, call: Call, constant: Constant, across: Constant) -> None:
    """Reduce over some axes; channels summed into each other are cut together, or pinned if they are all.

    `constant` is what becomes of a channel's own constant, `across` of those of the channels that are made into one.
    """
    x, out = call.tensors[0], call.outputs[0]
    tag = recorder.tag(x)
    axes = reduced_axes(call, x)
    keep = out.ndim == x.ndim
    faces = []
    for face in tag.faces:
        over = [a for a in varying_axes(face) if a in axes]
        if over:
            where = recorder.because(Kind.REDUCED, call)
            kind = kind_of(call)
            if kind is not None and len(tag.faces) == 1 and set(over) == set(varying_axes(face)):
                made_one(recorder, call, face, kind, where)
                return
            if set(over) == set(varying_axes(face)) or len(tag.faces) > 1:
                recorder.pin(face, where)
                continue
            columns = np.moveaxis(face, over, range(len(over))).reshape(-1, *kept_shape(face, over))
            face = recorder.pointwise(list(columns), across, reason=where)
        elif constant is not keep_constant and len(tag.faces) == 1:
            face = recorder.pointwise([face], constant, reason=recorder.because(Kind.NO_CHANNELS, call))
        faces.append(face if keep else face.reshape([n for a, n in enumerate(face.shape) if a not in axes]))
    finish(recorder, call, faces)


def made_one(recorder: Recorder, call: Call, face: Labels, kind: str, where: Reason) -> None:
    """All channels of a tensor become one, which stays; of a maximum there may also be told where it stands."""
    shape = [1] * call.outputs[0].ndim
    places = recorder.fresh((1,)) if len(call.outputs) > 1 else None
    total = recorder.summed(face.reshape(1, -1), where, kind, places)
    for tensor, labels in zip(call.outputs, (total, places), strict=False):
        if labels is not None:
            recorder.set(tensor, Tag((labels.reshape(shape),)))


def finish(recorder: Recorder, call: Call, faces: Sequence[Labels]) -> None:
    """Give the output its channels; where there is a second one, of positions, nothing is known of its values."""
    recorder.set(call.outputs[0], Tag(tuple(faces)))
    for tensor in call.outputs[1:]:
        positions = [
            recorder.pointwise([face], opaque, reason=recorder.because(Kind.NO_CHANNELS, call)) for face in faces
        ]
        recorder.set(tensor, Tag(tuple(positions)))


REDUCED: dict[str, Constant] = {
    "mean": lambda values: torch.stack(list(values)).mean(0),
    "sum": lambda values: torch.stack(list(values)).sum(0),
    **dict.fromkeys(["max", "amax"], lambda values: torch.stack(list(values)).amax(0)),
    **dict.fromkeys(["min", "amin"], lambda values: torch.stack(list(values)).amin(0)),
}
"""What several channels' constants become in one; NaN where one of them is unknown."""


def kept_shape(face: np.ndarray, over: list[int]) -> list[int]:
    """The shape of a face with the given axes at size 1."""
    return [1 if a in over else n for a, n in enumerate(face.shape)]


def normalise_over(recorder: Recorder, call: Call) -> None:
    """softmax, cumsum: values along an axis depend on each other; over the channels that pins them."""
    x, out = call.tensors[0], call.outputs[0]
    axis = call.arg(1, "dim", -1) % x.ndim
    faces = []
    for face in recorder.tag(x).faces:
        where = recorder.because(Kind.NORMALISED, call)
        if face.shape[axis] > 1 and varying_axes(face) == (axis,):
            recorder.pin(face, where)
        columns = [face] if face.shape[axis] == 1 else [face.take([i], axis) for i in range(face.shape[axis])]
        joined = recorder.pointwise(columns, opaque, reason=where) if len(columns) > 1 else face
        faces.append(recorder.pointwise([face, joined], opaque, reason=where))
    recorder.set(out, Tag(tuple(faces)))


POOLING: dict[str, Any] = dict.fromkeys(
    [
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "max_pool2d_with_indices",
        "max_pool3d_with_indices",
        "adaptive_max_pool2d",
        "adaptive_max_pool3d",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "_adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "_adaptive_avg_pool3d",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_nearest3d",
        "upsample_bilinear2d",
        "upsample_bicubic2d",
        "upsample_linear1d",
        "upsample_trilinear3d",
        "_upsample_nearest_exact2d",
        "_upsample_bilinear2d_aa",
        "_upsample_bicubic2d_aa",
        "reflection_pad1d",
        "reflection_pad2d",
        "reflection_pad3d",
        "replication_pad1d",
        "replication_pad2d",
        "replication_pad3d",
    ],
    pool,
)
POOLING |= dict.fromkeys(["avg_pool1d", "avg_pool2d", "avg_pool3d"], average_pool)
POOLING |= dict.fromkeys(["mean", "amax", "amin", "max", "min"], average)
POOLING |= {"sum": total}
POOLING |= dict.fromkeys(["var_mean", "prod", "logsumexp", "any", "all"], statistic)
POOLING |= dict.fromkeys(["var", "std"], deviation)
POOLING |= dict.fromkeys(["norm", "linalg_vector_norm"], norm)
POOLING |= dict.fromkeys(["_softmax", "_log_softmax", "softmax", "cumsum"], normalise_over)
