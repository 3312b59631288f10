"""Normalisation: BatchNorm, and ops that make the values along an axis depend on each other."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from slimnet.graph.channel_graph import Constants, CountedNorm, Norm, Pointwise, Value
from slimnet.graph.labels import Labels, along, varying_axes
from slimnet.graph.reasons import Kind, Reason
from slimnet.models.compensated_norm import compensated_class
from slimnet.tracing import meta_shapes
from slimnet.tracing.constant_rules import unknown_constant
from slimnet.tracing.op_call import Call, OpSpec
from slimnet.tracing.op_rows import merge_rows, same_row
from slimnet.tracing.ops.elementwise import fixed_size
from slimnet.tracing.recorder import Recorder, period
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
    rows = repeats_after(recorder, inputs, call.args[1:5])
    outputs = np.tile(recorder.fresh((rows,)), inputs.size // rows)
    recorder.join(outputs, inputs, where)
    own = attached(recorder, inputs, outputs, call.args[1:5], where)
    if own is not None:
        gamma, beta, mean, variance = own
        if training:
            mean = variance = None
        scale = None if gamma is None else recorder.parameter(call.args[1])
        recorder.add_step(Norm(inputs, outputs, (gamma, beta, mean, variance), float(eps), scale))
    if all(tensor is None for tensor in call.args[1:5]):
        count_channels(recorder, inputs)
    recorder.set(out, Tag((along(outputs, 1, x.ndim),)))


def attached(
    recorder: Recorder, inputs: Labels, outputs: Labels, vectors: Sequence[torch.Tensor | None], where: Reason
) -> list[Value | None] | None:
    """Cut what a norm applies to its channels together with them; returns how to compute each, None for none.

    None in the place of all if one depends on the network's input: then nothing is known of the outputs.
    """
    found = [tensor if tensor is None else recorder.attach(tensor, outputs, where) for tensor in vectors]
    if [value is None for value in found] == [tensor is None for tensor in vectors]:
        return found
    recorder.add_step(Pointwise((inputs,), outputs, unknown_constant))
    return None


def repeats_after(recorder: Recorder, inputs: Labels, vectors: Sequence[torch.Tensor | None]) -> int:
    """After how many channels the inputs of a BatchNorm repeat themselves, and all that it applies to them does too.

    InstanceNorm lays the examples of a batch behind each other, with γ and β as often: they have the same channels. A
    BatchNorm behind `cat([x, x])` has a γ for each.
    """
    rows = period(inputs)
    parameters = any(tensor is not None and recorder.parameter(tensor) is not None for tensor in vectors)
    if rows == inputs.size or parameters or not inputs.all():
        return inputs.size
    # Not before: the tag of a parameter makes it one that is used elsewhere than in a layer.
    faces = [() if tensor is None else recorder.tag(tensor).faces for tensor in vectors]
    alike = all(len(each) == 1 and period(each[0].reshape(-1)) == rows for each in faces if each != ())
    return rows if alike else inputs.size


def count_channels(recorder: Recorder, inputs: Labels) -> None:
    """Remember the channels of a module that has no tensor to read their number off.

    InstanceNorm lays the examples of a batch behind each other: the first has all channels.
    """
    module = recorder.modules.get(recorder.module)
    if isinstance(module, torch.nn.modules.batchnorm._NormBase):
        recorder.counted.append(CountedNorm(recorder.module, "num_features", inputs[: module.num_features]))


def group_norm(recorder: Recorder, call: Call) -> None:
    """GroupNorm: the channels of a group share their mean and variance, so that a group goes as a whole or not at all.

    It is recorded as the mean and the deviation of each group, the normalised channels, and a norm with γ and β. A
    single group stays.
    """
    x, weight, bias = call.args[:3]
    groups, eps = int(call.args[6]), float(call.args[7])
    where = fixed_size(recorder, call)
    over_channels = recorder.because(Kind.NORMALISED, call)
    labels = recorder.channels(x, 1, over_channels)
    if labels is None:
        return
    if groups == 1:
        recorder.pin(labels, over_channels)
    columns = list(labels.reshape(groups, -1).T)
    mean = recorder.pointwise(columns, mean_constant, reason=where)
    deviation = recorder.pointwise(columns, deviation_constant(eps), reason=where)
    size = len(columns)
    shared = [mean.repeat(size), deviation.repeat(size)]
    normalised = recorder.pointwise([labels, *shared], standardised_constant, reason=where)
    outputs = scaled(recorder, normalised, (weight, bias), where)
    count_groups(recorder, labels, groups)
    faces = (along(outputs, 1, x.ndim), along(mean, 1, 2), along(deviation, 1, 2))
    for out, face in zip(call.outputs, faces, strict=False):
        recorder.set(out, Tag((face,)))


def scaled(
    recorder: Recorder, normalised: Labels, affine: tuple[torch.Tensor | None, torch.Tensor | None], where: Reason
) -> Labels:
    """Record γ · x̂ + β of normalised channels x̂ `(C,)`; returns the labels of the results."""
    outputs = recorder.fresh((normalised.size,))
    recorder.join(outputs, normalised, where)
    own = attached(recorder, normalised, outputs, affine, where)
    if own is not None:
        vectors = (*own, repeated(0.0, normalised.size), repeated(1.0, normalised.size))
        scale = None if affine[0] is None else recorder.parameter(affine[0])
        recorder.add_step(Norm(normalised, outputs, vectors, 0.0, scale))
    return outputs


def mean_constant(values: Sequence[Constants]) -> Constants:
    """The mean of the channels of a group, all of which are constant."""
    return torch.stack(list(values)).mean(0)


def deviation_constant(eps: float) -> Callable[[Sequence[Constants]], Constants]:
    """The square root of the variance of the channels of a group, all of which are constant, plus ε."""
    return lambda values: (torch.stack(list(values)).var(0, correction=0) + eps).sqrt()


def standardised_constant(values: Sequence[Constants]) -> Constants:
    """(x − mean) / deviation."""
    return (values[0] - values[1]) / values[2]


def repeated(value: float, count: int) -> Value:
    """A tensor `(count,)` of one value."""
    return lambda: torch.full((count,), value, dtype=torch.float64, device="cpu")


def count_groups(recorder: Recorder, labels: Labels, groups: int) -> None:
    """Remember the groups and channels of a module that counts them; those with γ are set by its length."""
    module = recorder.modules.get(recorder.module)
    if isinstance(module, torch.nn.GroupNorm) and module.weight is None:
        recorder.counted.append(CountedNorm(recorder.module, "num_channels", labels))
        recorder.counted.append(CountedNorm(recorder.module, "num_groups", labels.reshape(groups, -1)[:, 0]))


def group_settings(_: Recorder, call: Call) -> tuple[Any, ...]:
    """The channels of a group, and ε; how many groups there are follows the width."""
    channels, groups, eps = call.args[4], call.args[6], call.args[7]
    return (int(channels) // int(groups), eps)


def layer_norm(recorder: Recorder, call: Call) -> None:
    """LayerNorm over channels: constants may go where what they add to mean and variance can be made up for.

    That is so in modules that `slimnet.models.compensated_norm` knows, if they run once.
    """
    x, _, weight, bias = call.args[:4]
    over_channels = recorder.because(Kind.NORMALISED, call)
    module = recorder.modules.get(recorder.module)
    faces = recorder.tag(x).faces
    again = any(total.kind == "moments" and total.where.place.module == recorder.module for total in recorder.sums)
    alone = len(faces) == 1 and varying_axes(faces[0]) == (x.ndim - 1,)
    if again or not alone or compensated_class(module) is None:
        for tensor in call.tensors:
            recorder.pin_tensor(tensor, over_channels)
        return
    where = fixed_size(recorder, call)
    inputs = faces[0].reshape(-1)
    shared = recorder.summed(inputs[None], over_channels, "moments")
    normalised = recorder.pointwise([inputs, shared.repeat(inputs.size)], unknown_constant, reason=where, joined=1)
    outputs = scaled(recorder, normalised, (weight, bias), where)
    if weight is None:
        recorder.counted.append(CountedNorm(recorder.module, "normalized_shape.0", inputs))
    recorder.set(call.outputs[0], Tag((along(outputs, x.ndim - 1, x.ndim),)))
    for statistic in call.outputs[1:]:
        recorder.set(statistic, Tag((shared.reshape([1] * x.ndim),)))


def layer_norm_settings(_: Recorder, call: Call) -> tuple[Any, ...]:
    """ε; over how many channels it is follows the width."""
    return (call.args[4],)


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
    {
        "native_layer_norm": OpSpec(layer_norm, numbers=layer_norm_settings),
        "native_group_norm": OpSpec(group_norm, numbers=group_settings),
    },
    {"_fused_rms_norm": OpSpec(pinned=Kind.NORMALISED)},
)
