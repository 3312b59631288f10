"""The op table: how each ATen op carries labels and constants.

A handler takes the recorder and one call, and sets the tags of the call's outputs. An op without a handler pins
every channel it touches: nothing is ever guessed.
"""

from collections.abc import Callable

from slimnet.graph.reasons import Kind
from slimnet.tracing.constant_rules import unknown_constant
from slimnet.tracing.op_call import Call
from slimnet.tracing.ops.elementwise import POINTWISE
from slimnet.tracing.ops.factories import FILLING
from slimnet.tracing.ops.layers import MIXING
from slimnet.tracing.ops.layout import STRUCTURAL
from slimnet.tracing.ops.pooling import POOLING
from slimnet.tracing.ops.spatial import PLANES
from slimnet.tracing.ops.splitting import DIVIDING
from slimnet.tracing.recorder import Recorder
from slimnet.tracing.tensor_tags import Tag

Handler = Callable[[Recorder, Call], None]

HANDLERS: dict[str, Handler] = {**POINTWISE, **STRUCTURAL, **DIVIDING, **FILLING, **MIXING, **POOLING, **PLANES}

STATISTICS = frozenset(["native_layer_norm", "native_group_norm", "_fused_rms_norm"])


def unknown(recorder: Recorder, call: Call) -> None:
    """Pin every channel that an op without a handler touches, and forget the constants that it may have overwritten."""
    kind = Kind.NORMALISED if call.name in STATISTICS else Kind.UNKNOWN_OP
    reason = recorder.because(kind, call)
    for tensor in call.tensors:
        recorder.pin_tensor(tensor, reason)
    for tensor in call.outputs:
        faces = recorder.tag(tensor).faces
        recorder.set(tensor, Tag(tuple(recorder.pointwise([face], unknown_constant, reason=reason) for face in faces)))
