"""Ops that fill a tensor with one number."""

import math
from collections.abc import Callable, Sequence

import torch

from slimnet.graph.channel_graph import Constants, Value
from slimnet.graph.reasons import Kind
from slimnet.tracing.op_call import Call
from slimnet.tracing.ops.elementwise import known_scalar
from slimnet.tracing.recorder import Recorder
from slimnet.tracing.tensor_tags import Tag

FILLED: dict[str, int | float | None] = {
    **dict.fromkeys(["zeros", "zeros_like", "new_zeros"], 0.0),
    **dict.fromkeys(["ones", "ones_like", "new_ones"], 1.0),
    **dict.fromkeys(["empty", "empty_like", "new_empty"]),
    "full": 1,
    "full_like": 1,
    "new_full": 2,
    "scalar_tensor": 0,
}
"""Ops that fill a tensor: the number (a float), or the position of the argument that is the number."""


def filled(recorder: Recorder, call: Call) -> None:
    """zeros, full, new_empty, ...: one value everywhere, in a size that may follow the network's width."""
    out = call.outputs[0]
    recorder.set(out, Tag(blank=True, empty="empty" in call.name, value=spread(fill_value(call), out)))


def fill_value(call: Call) -> float | None:
    """The number that an op fills a tensor with, None where it is none that we know of."""
    position = FILLED.get(call.name)
    value = call.arg(position, "fill_value") if isinstance(position, int) else position
    return float(value) if isinstance(value, int | float) else None


def spread(number: float | None, out: torch.Tensor) -> Value | None:
    """How to compute a tensor that is one number everywhere, in no more memory than that number takes."""
    shape, dtype = out.shape, out.dtype
    return None if number is None else lambda: torch.full((), number, dtype=dtype, device="cpu").expand(shape)


def fill(recorder: Recorder, call: Call) -> None:
    """fill, zero: one value in the place of what was there; it belongs to the same channels."""
    x, out = call.tensors[0], call.outputs[0]
    faces = recorder.tag(x).faces
    value = 0.0 if call.name == "zero" else call.arg(1, "value")
    if isinstance(value, torch.Tensor) and not recorder.tag(value).faces:
        held = known_scalar(recorder, value)
        value = None if held is None else held.item()
    number = float(value) if isinstance(value, int | float) else None
    if not faces:
        recorder.set(out, Tag(blank=number is not None, value=spread(number, out)))
        return

    def constant(values: Sequence[Constants]) -> Constants:
        return torch.full_like(values[0], math.nan if number is None else number)

    recorder.set(
        out,
        Tag(
            tuple(
                recorder.pointwise([face], constant, reason=recorder.because(Kind.NO_CHANNELS, call)) for face in faces
            )
        ),
    )


FILLING: dict[str, Callable[[Recorder, Call], None]] = {**dict.fromkeys(FILLED, filled), "fill": fill, "zero": fill}
