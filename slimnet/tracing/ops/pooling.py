"""Pooling, resizing and reductions: channels stay themselves while their planes shrink or grow."""

from typing import Any

import torch

from slimnet.graph.labels import varying_axes
from slimnet.graph.reasons import Kind
from slimnet.tracing.constant_rules import zero_only
from slimnet.tracing.op_call import Call
from slimnet.tracing.ops.reductions import average, deviation, finish, norm, normalise_over, statistic, total
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
