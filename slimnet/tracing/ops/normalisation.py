"""Normalisation: BatchNorm, and ops that make the values along an axis depend on each other."""

import numpy as np
import torch

from slimnet.graph.channel_graph import CountedNorm, Norm, Pointwise
from slimnet.graph.labels import Labels, along, varying_axes
from slimnet.graph.reasons import Kind
from slimnet.tracing import meta_shapes
from slimnet.tracing.constant_rules import unknown_constant
from slimnet.tracing.number_rules import no_number
from slimnet.tracing.op_call import Call, OpSpec
from slimnet.tracing.op_rows import merge_rows, same_row
from slimnet.tracing.ops.elementwise import fixed_size
from slimnet.tracing.recorder import Recorder
from slimnet.tracing.tensor_tags import Tag


def batch_norm(recorder: Recorder, call: Call) -> None:
    """BatchNorm, in evaluation or with the batch's statistics."""
    normalise(recorder, call, training=bool(call.args[5]), eps=call.args[7])


def batch_norm_in_evaluation(recorder: Recorder, call: Call) -> None:
    """BatchNorm by an op that knows no training."""
    normalise(recorder, call, training=False, eps=call.args[6])


def normalise(recorder: Recorder, call: Call, *, training: bool, eps: float) -> None:
    """Record a BatchNorm: γ = 0 makes a channel β whatever comes in. In training it takes the batch's statistics."""
    x, out = call.args[0], call.outputs[0]
    where = fixed_size(recorder, call)
    labels = recorder.channels(x, 1, where)
    inputs = np.zeros(x.shape[1], dtype=np.int64) if labels is None else labels
    outputs = recorder.fresh((inputs.size,))
    recorder.join(outputs, inputs, where)
    own = [tensor if tensor is None else recorder.attach(tensor, outputs, where) for tensor in call.args[1:5]]
    gamma, beta, mean, variance = own
    if training:
        mean = variance = None
    if [value is None for value in own] == [tensor is None for tensor in call.args[1:5]]:
        scale = None if gamma is None else recorder.parameter(call.args[1])
        recorder.add_step(Norm(inputs, outputs, (gamma, beta, mean, variance), float(eps), scale))
    else:
        recorder.add_step(Pointwise((inputs,), outputs, unknown_constant))
    if all(tensor is None for tensor in call.args[1:5]):
        count_channels(recorder, inputs)
    recorder.set(out, Tag((along(outputs, 1, x.ndim),)))


def count_channels(recorder: Recorder, inputs: Labels) -> None:
    """Remember the channels of a module that has no tensor to read their number off.

    InstanceNorm lays the examples of a batch behind each other: the first has all channels.
    """
    module = recorder.modules.get(recorder.module)
    if isinstance(module, torch.nn.modules.batchnorm._NormBase):
        recorder.counted.append(CountedNorm(recorder.module, inputs[: module.num_features]))


def normalise_over(recorder: Recorder, call: Call) -> None:
    """softmax, cumsum: values along an axis depend on each other; over the channels that pins them."""
    x, out = call.tensors[0], call.outputs[0]
    axis = call.arg(1, "dim", -1) % x.ndim
    faces = []
    for face in recorder.tag(x).faces:
        where = recorder.because(Kind.NORMALISED, call)
        if face.shape[axis] > 1 and varying_axes(face) == (axis,):
            recorder.pin(face, where)
        columns = [face] if face.shape[axis] == 1 else [face.take([i], axis) for i in range(face.shape[axis])]
        joined = recorder.pointwise(columns, unknown_constant, reason=where) if len(columns) > 1 else face
        faces.append(recorder.pointwise([face, joined], unknown_constant, reason=where))
    recorder.set(out, Tag(tuple(faces)))


NORMALISATION_OPS = merge_rows(
    {
        "native_batch_norm": OpSpec(batch_norm, shape=meta_shapes.batch_norm, width_free=True),
        "_native_batch_norm_legit": OpSpec(batch_norm, width_free=True),
        "_native_batch_norm_legit_no_training": OpSpec(
            batch_norm_in_evaluation, shape=meta_shapes.batch_norm, width_free=True
        ),
        "cudnn_batch_norm": OpSpec(batch_norm, width_free=True),
    },
    same_row(OpSpec(normalise_over), "_softmax", "_log_softmax", "softmax", "cumsum"),
    same_row(OpSpec(pinned=Kind.NORMALISED, numbers=no_number), "native_layer_norm", "native_group_norm"),
    {"_fused_rms_norm": OpSpec(pinned=Kind.NORMALISED)},
)
