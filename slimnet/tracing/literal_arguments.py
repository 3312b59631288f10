"""The numbers that an op takes from the network's code, which may have computed them from a width.

A narrower network must compute with the same ones, apart from the sizes and positions of what has become narrower.
"""

from typing import Any

import torch

from slimnet.tracing.number_rules import numbers_among
from slimnet.tracing.op_call import Call
from slimnet.tracing.ops.elementwise import known_scalar
from slimnet.tracing.recorder import Recorder


def numbers_of(recorder: Recorder, call: Call) -> tuple[Any, ...]:
    """The numbers in an op's arguments, and what its tensors hold that are known and belong to no channel."""
    rule = call.spec.numbers
    given = numbers_among(call.args, call.kwargs) if rule is None else rule(recorder, call)
    for tensor in call.tensors:
        entry = recorder.tags.get(id(tensor))
        if entry is not None and entry[1].value is not None and not entry[1].faces:
            given = (*given, held(recorder, tensor))
    return given


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
