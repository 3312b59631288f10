"""Reductions over planes or over channels."""

from collections.abc import Sequence

import numpy as np
import torch

from slimnet.graph.channel_graph import Constants
from slimnet.graph.labels import Labels, varying_axes
from slimnet.graph.reasons import Kind, Reason
from slimnet.tracing.constant_rules import all_zero, unknown_constant, zero_only
from slimnet.tracing.meta_shapes import reduction
from slimnet.tracing.op_call import Call, Handler, OpSpec
from slimnet.tracing.op_rows import merge_rows, same_row
from slimnet.tracing.ops.elementwise import elementwise
from slimnet.tracing.recorder import Constant, Recorder
from slimnet.tracing.tensor_tags import Tag


def keep_constant(values: Sequence[Constants]) -> Constants:
    """A constant plane stays that constant."""
    return values[0]


def mean_of(values: Sequence[Constants]) -> Constants:
    """The mean of several channels' constants; NaN where one of them is unknown."""
    return torch.stack(list(values)).mean(0)


def sum_of(values: Sequence[Constants]) -> Constants:
    """The sum of several channels' constants; NaN where one of them is unknown."""
    return torch.stack(list(values)).sum(0)


def largest_of(values: Sequence[Constants]) -> Constants:
    """The largest of several channels' constants; NaN where one of them is unknown."""
    return torch.stack(list(values)).amax(0)


def smallest_of(values: Sequence[Constants]) -> Constants:
    """The smallest of several channels' constants; NaN where one of them is unknown."""
    return torch.stack(list(values)).amin(0)


def reduced_axes(call: Call, x: torch.Tensor, position: int = 1) -> list[int]:
    """The axes a reduction runs over: its argument `dim`, at a position."""
    dim = call.arg(position, "dim")
    if dim is None or dim == []:
        return list(range(x.ndim))
    return [d % x.ndim for d in (dim if isinstance(dim, list | tuple) else [dim])]


def averaging(across: Constant, kind: str | None = None) -> Handler:
    """The handler of mean, amax, min, ...: a constant channel keeps its value.

    `across` is what several channels' constants become in one, `kind` what the op makes of channels, as in `reduce`.
    """

    def average(recorder: Recorder, call: Call) -> None:
        if len(call.tensors) == 2:
            elementwise(recorder, call)
        else:
            reduce(recorder, call, keep_constant, across, kind)

    return average


def total(recorder: Recorder, call: Call) -> None:
    """sum: of a plane zero stays zero; how large its sum is otherwise depends on the size of the input."""
    x = call.tensors[0]
    axes = set(reduced_axes(call, x))
    faces = recorder.tag(x).faces
    counted = axes.intersection(varying_axes(faces[0])) if len(faces) == 1 else axes
    reduce(recorder, call, zero_only, sum_of if counted == axes else all_zero, "sum")


def statistic(recorder: Recorder, call: Call) -> None:
    """Any other reduction: nothing is known of its value."""
    reduce(recorder, call, unknown_constant, unknown_constant)


def deviation(recorder: Recorder, call: Call) -> None:
    """var, std: what is constant over a plane does not deviate from its mean."""
    reduce(recorder, call, lambda values: values[0] * 0, unknown_constant)


def norm(recorder: Recorder, call: Call) -> None:
    """A norm: that of zeros is zero, and zeros add nothing to it unless it counts or takes the smallest."""
    order = call.arg(1, "ord", 2)
    if isinstance(order, int | float) and order > 0:
        reduce(recorder, call, zero_only, all_zero, "sum", position=2)
    else:
        reduce(recorder, call, unknown_constant, unknown_constant, position=2)


def reduce(
    recorder: Recorder,
    call: Call,
    constant: Constant,
    across: Constant,
    kind: str | None = None,
    position: int = 1,
) -> None:
    """Reduce over some axes; channels summed into each other are cut together, or pinned if they are all.

    `constant` is what becomes of a channel's own constant, `across` of those of the channels that are made into one.
    `kind` says what is made of channels that need not all be there ("sum", "mean" or "max"), None where they must be.
    The argument `dim` is at `position`.
    """
    x, out = call.tensors[0], call.outputs[0]
    tag = recorder.tag(x)
    axes = reduced_axes(call, x, position)
    keep = out.ndim == x.ndim
    faces = []
    for face in tag.faces:
        over = [a for a in varying_axes(face) if a in axes]
        if over:
            where = recorder.because(Kind.REDUCED, call)
            if kind is not None and len(tag.faces) == 1 and set(over) == set(varying_axes(face)):
                reduce_to_one(recorder, call, face, kind, where)
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


def reduce_to_one(recorder: Recorder, call: Call, face: Labels, kind: str, where: Reason) -> None:
    """All channels of a tensor become one, which stays; a maximum may have its position as a second output."""
    shape = [1] * call.outputs[0].ndim
    indices = recorder.fresh((1,)) if len(call.outputs) > 1 else None
    total = recorder.summed(face.reshape(1, -1), where, kind, indices)
    for tensor, labels in zip(call.outputs, (total, indices), strict=False):
        if labels is not None:
            recorder.set(tensor, Tag((labels.reshape(shape),)))


def finish(recorder: Recorder, call: Call, faces: Sequence[Labels]) -> None:
    """Give the output its channels; where there is a second one, of positions, nothing is known of its values."""
    recorder.set(call.outputs[0], Tag(tuple(faces)))
    for tensor in call.outputs[1:]:
        positions = [
            recorder.pointwise([face], unknown_constant, reason=recorder.because(Kind.NO_CHANNELS, call))
            for face in faces
        ]
        recorder.set(tensor, Tag(tuple(positions)))


def kept_shape(face: np.ndarray, over: list[int]) -> list[int]:
    """The shape of a face with the given axes at size 1."""
    return [1 if a in over else n for a, n in enumerate(face.shape)]


REDUCTION_OPS = merge_rows(
    {
        "mean": OpSpec(averaging(mean_of, "mean"), shape=reduction, width_free=True),
        "sum": OpSpec(total, shape=reduction),
    },
    same_row(OpSpec(averaging(largest_of, "max")), "amax", "max"),
    same_row(OpSpec(averaging(smallest_of)), "amin", "min"),
    same_row(OpSpec(statistic), "var_mean", "prod", "logsumexp", "any", "all"),
    same_row(OpSpec(deviation), "var", "std"),
    same_row(OpSpec(norm), "norm", "linalg_vector_norm"),
)
