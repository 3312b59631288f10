"""Pooling and resizing: channels stay themselves while their planes shrink or grow."""

import torch

from slimnet.graph.labels import varying_axes
from slimnet.graph.reasons import Kind
from slimnet.tracing import meta_shapes
from slimnet.tracing.constant_rules import zero_only
from slimnet.tracing.meta_shapes import max_pool, resized
from slimnet.tracing.op_call import Call, OpSpec
from slimnet.tracing.op_rows import merge_rows, same_row
from slimnet.tracing.ops.reductions import finish
from slimnet.tracing.recorder import Constant, Recorder

PLANE_AXES = {"1d": 1, "2d": 2, "3d": 3}


def plane_axes(call: Call, x: torch.Tensor) -> int:
    """How many trailing axes an op works on, read off its name."""
    return next((count for suffix, count in PLANE_AXES.items() if suffix in call.name), x.ndim - 2)


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


POOL = OpSpec(pool)

POOLING_OPS = merge_rows(
    {"max_pool2d_with_indices": OpSpec(pool, shape=max_pool, width_free=True)},
    same_row(
        OpSpec(pool, shape=resized, width_free=True),
        "_adaptive_avg_pool2d", "upsample_bilinear2d", "upsample_nearest2d",
    ),
    {
        "avg_pool1d": OpSpec(average_pool),
        "avg_pool2d": OpSpec(average_pool, shape=meta_shapes.average_pool, width_free=True),
        "avg_pool3d": OpSpec(average_pool),
    },
    same_row(POOL, "max_pool1d", "max_pool2d", "max_pool3d", "max_pool3d_with_indices"),
    same_row(POOL, "adaptive_max_pool2d", "adaptive_max_pool3d"),
    same_row(POOL, "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool3d"),
    same_row(POOL, "upsample_nearest1d", "upsample_nearest3d", "_upsample_nearest_exact2d"),
    same_row(POOL, "upsample_linear1d", "upsample_trilinear3d", "_upsample_bilinear2d_aa"),
    same_row(POOL, "upsample_bicubic2d", "_upsample_bicubic2d_aa"),
    same_row(POOL, "reflection_pad1d", "reflection_pad2d", "reflection_pad3d"),
    same_row(POOL, "replication_pad1d", "replication_pad2d", "replication_pad3d"),
)  # fmt: skip
