"""The numbers that an op takes from the network's code, which may have computed them from a width.

A narrower network must compute with the same ones, apart from the sizes and positions of what has become narrower.
"""

from typing import Any

import torch

from slimnet.graph.labels import varying_axes
from slimnet.tracing.op_call import Call
from slimnet.tracing.ops.elementwise import known_scalar
from slimnet.tracing.recorder import Recorder

NUMBERS = (int, float)
SEQUENCES = (list, tuple)

SIZES = frozenset(
    [
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "expand",
        "repeat",
        "as_strided",
        "split",
        "split_with_sizes",
        "unsafe_split",
        "unsafe_split_with_sizes",
        "new_zeros",
        "new_ones",
        "new_empty",
        "new_full",
        "resize",
        "channel_shuffle",
        "native_channel_shuffle",
        "native_group_norm",
        "native_layer_norm",
    ]
)
"""Ops whose numbers are sizes, which follow the width."""

ALONG = frozenset(["slice", "select", "slice_scatter", "select_scatter", "narrow"])
"""Ops whose numbers are positions on one axis."""


def numbers_of(recorder: Recorder, call: Call) -> tuple[Any, ...]:
    """The numbers in an op's arguments, and what its tensors hold that are known and belong to no channel."""
    given = () if call.name in SIZES else written(recorder, call)
    for tensor in call.tensors:
        entry = recorder.tags.get(id(tensor))
        if entry is not None and entry[1].value is not None and not entry[1].faces:
            given = (*given, held(recorder, tensor))
    return given


def written(recorder: Recorder, call: Call) -> tuple[Any, ...]:
    """The numbers in an op's arguments, less those that follow the width of the channel axes."""
    if call.name == "convolution":
        return call.args[3:8]
    values = (*call.args, *call.kwargs.values()) if call.kwargs else call.args
    if call.name in ALONG and follows(recorder, call):
        return ()
    if call.name == "constant_pad_nd":
        values = (plane_amounts(recorder, call), *values[2:])
    return tuple([value for value in values if isinstance(value, NUMBERS) or is_list_of_numbers(value)])


def is_list_of_numbers(value: Any) -> bool:
    """Whether an argument is several numbers."""
    return isinstance(value, SEQUENCES) and bool(value) and isinstance(value[0], NUMBERS)


def follows(recorder: Recorder, call: Call) -> bool:
    """Whether an op's axis is one of channels."""
    x = call.tensors[0]
    axis = call.arg(1 if call.name in ("slice", "select", "narrow") else 2, "dim", 0) % x.ndim
    return any(axis in varying_axes(face) for tensor in call.tensors for face in recorder.tag(tensor).faces)


def plane_amounts(recorder: Recorder, call: Call) -> list[int]:
    """How much an op pads the axes that are none of channels."""
    x = call.tensors[0]
    channels = {axis for face in recorder.tag(x).faces for axis in varying_axes(face)}
    return [amount for place, amount in enumerate(call.args[1]) if x.ndim - 1 - place // 2 not in channels]


def held(recorder: Recorder, tensor: torch.Tensor) -> str:
    """What a known tensor holds, however often it is repeated."""
    scalar = known_scalar(recorder, tensor) if not tensor.ndim or recorder.is_blank(tensor) else None
    if scalar is not None:
        return str(scalar.item())
    value = recorder.value(tensor)
    assert value is not None
    real = value().detach()
    for axis in range(real.ndim):
        if real.shape[axis] > 1 and bool((real == real.narrow(axis, 0, 1)).all()):
            real = real.narrow(axis, 0, 1)
    return f"{tuple(real.shape)} {hash(in_memory(real).view(torch.uint8).numpy().tobytes())}"


def in_memory(tensor: torch.Tensor) -> torch.Tensor:
    """The elements `(n,)` of a tensor one after the other on the CPU, whatever its strides."""
    flat = tensor.resolve_conj().cpu().reshape(-1)
    return flat if flat.stride() == (1,) else flat.clone(memory_format=torch.contiguous_format)
