"""The registry of ops: what slimnet knows about each op of torch, one row an op.

A row is an `OpSpec`. Its handler takes the recorder and one call, and sets the tags of the call's outputs. An op
without a handler pins every channel that it touches: nothing is guessed.
"""

from slimnet.tracing.constant_rules import unknown_constant
from slimnet.tracing.op_call import Call, OpSpec
from slimnet.tracing.op_rows import merge_rows
from slimnet.tracing.ops.elementwise import ELEMENTWISE_OPS
from slimnet.tracing.ops.factories import FACTORY_OPS
from slimnet.tracing.ops.layers import LAYER_OPS
from slimnet.tracing.ops.layout import LAYOUT_OPS
from slimnet.tracing.ops.normalisation import NORMALISATION_OPS
from slimnet.tracing.ops.pooling import POOLING_OPS
from slimnet.tracing.ops.reductions import REDUCTION_OPS
from slimnet.tracing.ops.spatial import SPATIAL_OPS
from slimnet.tracing.ops.splitting import SPLITTING_OPS
from slimnet.tracing.recorder import Recorder
from slimnet.tracing.tensor_tags import Tag

OPS = merge_rows(
    ELEMENTWISE_OPS,
    NORMALISATION_OPS,
    LAYER_OPS,
    LAYOUT_OPS,
    SPLITTING_OPS,
    POOLING_OPS,
    REDUCTION_OPS,
    SPATIAL_OPS,
    FACTORY_OPS,
)
"""The row of each op, by its name in ATen without the overload; in-place ops have that of the op they compute."""

UNKNOWN = OpSpec()
"""The row of any other op."""


def spec_of(name: str) -> OpSpec:
    """What slimnet knows about an op, by its name."""
    return OPS.get(name, UNKNOWN)


def unknown(recorder: Recorder, call: Call) -> None:
    """Pin every channel that an op without a handler touches, and forget the constants that it may have overwritten."""
    reason = recorder.because(call.spec.pinned, call)
    for tensor in call.tensors:
        recorder.pin_tensor(tensor, reason)
    for tensor in call.outputs:
        faces = recorder.tag(tensor).faces
        recorder.set(tensor, Tag(tuple(recorder.pointwise([face], unknown_constant, reason=reason) for face in faces)))
