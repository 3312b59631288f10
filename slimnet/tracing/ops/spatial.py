"""Ops that work within each channel's plane: resampled at computed places, unfolded, sorted, in other bases."""

from collections.abc import Sequence

import numpy as np
import torch

from slimnet.graph.labels import Labels, along, compress
from slimnet.graph.reasons import Kind
from slimnet.tracing.constant_rules import all_zero, unknown_constant, zero_only
from slimnet.tracing.op_call import Call, OpSpec
from slimnet.tracing.op_rows import merge_rows, same_row
from slimnet.tracing.ops.elementwise import combine
from slimnet.tracing.ops.reductions import finish, keep_constant
from slimnet.tracing.recorder import Constant, Recorder
from slimnet.tracing.tensor_tags import Tag


def through(recorder: Recorder, call: Call, axes: Sequence[int], constant: Constant) -> None:
    """Channels stay themselves where the op works along other axes than theirs; along their own they stay."""
    x = call.tensors[0]
    where = recorder.because(Kind.NEIGHBOURS, call)
    faces = []
    for face in recorder.tag(x).faces:
        if any(face.shape[axis] > 1 for axis in axes):
            recorder.pin(face, where)
        else:
            faces.append(recorder.pointwise([face], constant, reason=where))
    finish(recorder, call, faces)


def ordered(recorder: Recorder, call: Call) -> None:
    """sort, topk, cummax: the values of a constant plane are that constant in any order."""
    place = 2 if call.name == "topk" else 1
    x = call.tensors[0]
    through(recorder, call, [call.arg(place, "dim", -1) % x.ndim], keep_constant)


def transformed(recorder: Recorder, call: Call) -> None:
    """Fourier transforms: zero stays zero."""
    x = call.tensors[0]
    through(recorder, call, [axis % x.ndim for axis in call.args[1]], zero_only)


def leaky(recorder: Recorder, call: Call) -> None:
    """rrelu: a leaky ReLU with a random slope, or the mean one."""
    through(recorder, call, (), zero_only)


def real_parts(recorder: Recorder, call: Call) -> None:
    """view_as_real: real and imaginary parts on an axis of their own."""
    faces = recorder.tag(call.tensors[0]).faces
    reason = recorder.because(Kind.NO_CHANNELS, call)
    finish(recorder, call, [recorder.pointwise([face[..., None]], zero_only, reason=reason) for face in faces])


def complex_pair(recorder: Recorder, call: Call) -> None:
    """complex: two tensors as the parts of one."""
    combine(
        recorder,
        call,
        lambda _call, scalars: unknown_constant if any(s is not None and s.any() for s in scalars) else all_zero,
    )


def complex_numbers(recorder: Recorder, call: Call) -> None:
    """view_as_complex: the last axis becomes the parts of one number, which go together."""
    reason = recorder.because(Kind.NO_CHANNELS, call)
    faces = []
    for face in recorder.tag(call.tensors[0]).faces:
        parts = [face[..., place] for place in range(face.shape[-1])]
        faces.append(recorder.pointwise(parts, all_zero, reason=reason))
    finish(recorder, call, faces)


def one_axis(recorder: Recorder, call: Call, tensor: torch.Tensor, axis: int) -> Labels | None:
    """The labels `(C,)` of a tensor's channel axis; None where it has none, or has weights' axes."""
    return (
        recorder.channels(tensor, axis, recorder.because(Kind.NO_CHANNELS, call))
        if recorder.tag(tensor).faces
        else None
    )


def sampled(recorder: Recorder, call: Call) -> None:
    """grid_sample: outside the plane there are zeros, or the plane's own values; the places are no channels."""
    x, grid, out = call.tensors[0], call.tensors[1], call.outputs[0]
    recorder.pin_tensor(grid, recorder.because(Kind.POSITIONS, call))
    labels = one_axis(recorder, call, x, 1)
    if labels is not None:
        constant = keep_constant if call.args[3] else zero_only
        new = recorder.pointwise([labels], constant, reason=recorder.because(Kind.NO_CHANNELS, call))
        recorder.set(out, Tag((along(new, 1, out.ndim),)))


def unfolded(recorder: Recorder, call: Call) -> None:
    """im2col, `(N, C, H, W)` to `(N, C · taps, L)`: each channel stands there once for each tap."""
    x, out = call.tensors[0], call.outputs[0]
    labels = one_axis(recorder, call, x, x.ndim - 3)
    if labels is not None:
        constant = zero_only if any(call.args[3]) else keep_constant
        new = recorder.pointwise([labels], constant, reason=recorder.because(Kind.NO_CHANNELS, call))
        recorder.set(out, Tag((along(np.repeat(new, out.shape[-2] // new.size), out.ndim - 2, out.ndim),)))


def folded(recorder: Recorder, call: Call) -> None:
    """col2im, `(N, C · taps, L)` to `(N, C, H, W)`: the taps of a channel are added up."""
    x, out = call.tensors[0], call.outputs[0]
    labels = one_axis(recorder, call, x, x.ndim - 2)
    if labels is not None:
        taps = list(labels.reshape(out.shape[-3], -1).T)
        new = recorder.pointwise(taps, all_zero, reason=recorder.because(Kind.NO_CHANNELS, call))
        recorder.set(out, Tag((along(new, out.ndim - 3, out.ndim),)))


def unpooled(recorder: Recorder, call: Call) -> None:
    """max_unpool: the values of a plane at the positions that pooling noted for the same channel, zeros elsewhere."""
    x, positions, out = call.tensors[0], call.tensors[1], call.outputs[0]
    axis = x.ndim - (3 if "2d" in call.name else 4)
    both = [one_axis(recorder, call, tensor, axis) for tensor in (x, positions)]
    labels = [np.zeros(x.shape[axis], dtype=np.int64) if found is None else found for found in both]
    new = recorder.pointwise(labels, zero_only, reason=recorder.because(Kind.OTHER_POSITIONS, call))
    recorder.set(out, Tag((along(new, axis, out.ndim),)))


def indexed(recorder: Recorder, call: Call) -> None:
    """x[..., i], index_select: positions along axes without channels, whatever they are."""
    x = call.tensors[0]
    one_axis = call.name == "index_select"
    places = [None] * (call.args[1] % x.ndim) + [call.args[2]] if one_axis else list(call.args[1])
    faces = []
    for face in recorder.tag(x).faces:
        if any(place is not None and face.shape[axis] > 1 for axis, place in enumerate(places)):
            recorder.pin(face, recorder.because(Kind.NUMBERS, call))
        else:
            # Labels do not change along these axes, so that the first position stands for any.
            taken = tuple(slice(None) if p is None else np.zeros(p.shape, dtype=np.int64) for p in places)
            moved = compress(face[taken])
            faces.append(recorder.pointwise([moved], keep_constant, reason=recorder.because(Kind.NO_CHANNELS, call)))
    for place in places:
        if place is not None:
            recorder.pin_tensor(place, recorder.because(Kind.POSITIONS, call))
    finish(recorder, call, faces)


SPATIAL_OPS = merge_rows(
    {
        "rrelu_with_noise": OpSpec(leaky),
        "complex": OpSpec(complex_pair),
        "view_as_real": OpSpec(real_parts),
        "view_as_complex": OpSpec(complex_numbers),
        "im2col": OpSpec(unfolded),
        "col2im": OpSpec(folded),
    },
    same_row(OpSpec(ordered), "sort", "topk", "cummax", "cummin"),
    same_row(OpSpec(transformed), "_fft_r2c", "_fft_c2r", "_fft_c2c"),
    same_row(OpSpec(sampled), "grid_sampler_2d", "grid_sampler_3d"),
    same_row(OpSpec(indexed, uses="part"), "index", "_unsafe_index", "index_select"),
    same_row(OpSpec(unpooled), "max_unpool2d", "max_unpool3d"),
)
