"""Ops that make a tensor: filled with one number, with none yet, or with a sequence."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from slimnet.graph.channel_graph import Constants, Value
from slimnet.graph.reasons import Kind
from slimnet.tracing.number_rules import no_number
from slimnet.tracing.op_call import Call, Handler, OpSpec
from slimnet.tracing.op_rows import merge_rows, same_row
from slimnet.tracing.ops.elementwise import known_scalar
from slimnet.tracing.recorder import Recorder
from slimnet.tracing.tensor_tags import Tag


def filled_with(number: float) -> Handler:
    """The handler of zeros, new_ones, ...: this number everywhere, in a size that may follow the network's width."""
    return lambda recorder, call: set_filled(recorder, call, number)


def filled_by_argument(position: int) -> Handler:
    """The handler of full, new_full, ...: the argument `fill_value` at a position is everywhere."""
    return lambda recorder, call: set_filled(recorder, call, number_or_none(call.arg(position, "fill_value")))


def set_filled(recorder: Recorder, call: Call, number: float | None) -> None:
    """One value everywhere; None where it is none that we know of."""
    out = call.outputs[0]
    recorder.set(out, Tag(blank=True, value=spread(number, out)))


def empty(recorder: Recorder, call: Call) -> None:
    """empty, new_empty, ...: no values yet, in a size that may follow the network's width."""
    recorder.set(call.outputs[0], Tag(blank=True, empty=True))


def number_or_none(value: Any) -> float | None:
    """An argument as a float, where it is a number."""
    return float(value) if isinstance(value, int | float) else None


def spread(number: float | None, out: torch.Tensor) -> Value | None:
    """How to compute a tensor that is one number everywhere, in no more memory than that number takes."""
    shape, dtype = out.shape, out.dtype
    return None if number is None else lambda: torch.full((), number, dtype=dtype, device="cpu").expand(shape)


def zero(recorder: Recorder, call: Call) -> None:
    """zero: 0 in the place of what was there."""
    overwrite(recorder, call, 0.0)


def fill(recorder: Recorder, call: Call) -> None:
    """fill: a number, or the value of a tensor that is one, in the place of what was there."""
    value = call.arg(1, "value")
    if isinstance(value, torch.Tensor) and not recorder.tag(value).faces:
        held = known_scalar(recorder, value)
        value = None if held is None else held.item()
    overwrite(recorder, call, number_or_none(value))


def overwrite(recorder: Recorder, call: Call, number: float | None) -> None:
    """One value in the place of what was there; it belongs to the same channels. None where it is unknown."""
    out = call.outputs[0]
    faces = recorder.tag(call.tensors[0]).faces
    if not faces:
        recorder.set(out, Tag(blank=number is not None, value=spread(number, out)))
        return

    def constant(values: Sequence[Constants]) -> Constants:
        return torch.full_like(values[0], math.nan if number is None else number)

    reason = recorder.because(Kind.NO_CHANNELS, call)
    recorder.set(out, Tag(tuple(recorder.pointwise([face], constant, reason=reason) for face in faces)))


FACTORY_OPS = merge_rows(
    {
        "zeros": OpSpec(filled_with(0.0), uses="none", factory=True),
        "zeros_like": OpSpec(filled_with(0.0), uses="none"),
        "new_zeros": OpSpec(filled_with(0.0), numbers=no_number, uses="none"),
        "ones": OpSpec(filled_with(1.0), uses="none", factory=True),
        "ones_like": OpSpec(filled_with(1.0), uses="none"),
        "new_ones": OpSpec(filled_with(1.0), numbers=no_number, uses="none"),
        "empty": OpSpec(empty, uses="none"),
        "empty_like": OpSpec(empty, uses="none"),
        "new_empty": OpSpec(empty, numbers=no_number, uses="none"),
        "full": OpSpec(filled_by_argument(1), uses="none", factory=True),
        "full_like": OpSpec(filled_by_argument(1), uses="none"),
        "new_full": OpSpec(filled_by_argument(2), numbers=no_number, uses="none"),
        "scalar_tensor": OpSpec(filled_by_argument(0), uses="none", factory=True),
        "fill": OpSpec(fill, uses="others"),
        "zero": OpSpec(zero, uses="others"),
    },
    same_row(OpSpec(factory=True), "arange", "linspace", "eye", "tril_indices", "triu_indices"),
)
