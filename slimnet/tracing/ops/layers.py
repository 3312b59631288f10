"""Ops that mix channels: convolutions, linear layers and matrix products."""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch

from slimnet.graph.channel_graph import Depthwise, Reader, Value
from slimnet.graph.labels import Labels, along, varying_axes
from slimnet.graph.reasons import Kind, Place, Reason
from slimnet.tracing import meta_shapes
from slimnet.tracing.constant_rules import unknown_constant, zero_only
from slimnet.tracing.number_rules import convolution_settings
from slimnet.tracing.op_call import Call, OpSpec
from slimnet.tracing.op_rows import merge_rows, same_row
from slimnet.tracing.ops.elementwise import product
from slimnet.tracing.recorder import Recorder
from slimnet.tracing.size_uses import note_use, origin
from slimnet.tracing.tensor_tags import Tag

STANDARD = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
"""The layers of torch that can be given the bias they lack."""

OUTPUT_WIDTHS = ("out_channels", "out_features")
"""The attributes of these layers that say how many channels they return."""


class Layer(NamedTuple):
    """A convolution or linear layer as the ops see it; the weight's input and output axes are `axes`.

    `name` is the weight's where it is a parameter; `value` computes the real one. `outputs` counts the channels that
    the layer writes.
    """

    weight: torch.Tensor
    name: str | None
    value: Value
    bias: torch.Tensor | None
    axes: tuple[int, int]
    outputs: int
    groups: int
    uniform: bool
    macs: int
    kind: str


def convolution(recorder: Recorder, call: Call) -> None:
    """Any convolution, 1-d to 3-d, grouped, depthwise or transposed."""
    x, weight, bias = call.args[:3]
    out = call.outputs[0]
    where = recorder.because(Kind.CONVOLVED, call)
    value = recorder.value(weight)
    if value is None:
        pin_both(recorder, x, weight, recorder.because(Kind.DATA_WEIGHT, call))
        if not is_whole_layer(recorder, out.shape[1]):
            return
        value = unknown_weight(weight)
    transposed, groups = bool(call.args[6]), int(call.args[8])
    before, after, (_, columns, *kernel) = x.shape, out.shape, weight.shape
    taps = math.prod(kernel)
    spread = transposed and (taps > 1 or max(call.args[3]) > 1)
    # Between the strides of a transposed convolution there is nothing but the bias.
    padded = any(call.args[4]) or any(call.args[7]) or spread
    macs = math.prod(before if transposed else after) * columns * taps
    name, axes = recorder.parameter(weight), (0, 1) if transposed else (1, 0)
    layer = Layer(weight, name, value, bias, axes, after[1], groups, not padded, macs, "conv")
    outputs = mix(recorder, call, recorder.channels(x, 1, where), before[1], layer)
    recorder.set(out, Tag((along(outputs, 1, len(after)),)))


def is_whole_layer(recorder: Recorder, outputs: int) -> bool:
    """Whether the running module is a layer of torch that returns so many channels: all those of this op.

    A layer whose weight is not known (it is fake-quantised, for example) is counted then, and its channels stay.
    """
    module = recorder.modules.get(recorder.module)
    return isinstance(module, STANDARD) and outputs in (getattr(module, name, None) for name in OUTPUT_WIDTHS)


def unknown_weight(weight: torch.Tensor) -> Value:
    """A weight of which nothing is known but its shape."""
    shape = weight.shape
    return lambda: torch.full(shape, torch.nan, device="cpu")


def pin_both(recorder: Recorder, x: torch.Tensor, weight: torch.Tensor, reason: Reason) -> None:
    """Give up on a layer: nothing it touches may be removed."""
    recorder.pin_tensor(x, reason)
    recorder.pin_tensor(weight, reason)


def mix(recorder: Recorder, call: Call, inputs: Labels | None, width: int, layer: Layer) -> Labels:
    """Record one layer that reads `inputs` `(K,)`; returns its output labels `(O,)`."""
    here = recorder.here(call)
    inputs = np.zeros(width, dtype=np.int64) if inputs is None else inputs
    inputs = recorder.named(inputs, Reason(Kind.FIXED_SIZE, here))
    outputs = recorder.fresh((layer.outputs,))
    depthwise = recorder.is_depthwise(layer.groups > 1 and layer.groups == width)
    join_weight(recorder, inputs, outputs, layer, depthwise, here)
    bias = (
        None
        if layer.bias is None
        else recorder.attach(layer.bias, outputs, Reason(Kind.NO_CHANNELS, here)) or unknown_bias(layer.outputs)
    )
    name, value = layer.name, layer.value
    path, _, leaf = (recorder.module, "", "weight") if name is None else name.rpartition(".")
    # A module may hold several weights, under names of its own.
    place = path if leaf.startswith(("weight", "original")) else name or path
    if depthwise:
        recorder.join(outputs, np.repeat(inputs, layer.outputs // width), Reason(Kind.NO_CHANNELS, here))
        note_use(recorder, inputs, 0, origin(recorder, layer.groups))
        recorder.add_step(Depthwise(inputs, outputs, layer.uniform, value, bias, name, place, layer.macs))
        return outputs
    bias_name = None if layer.bias is None else recorder.parameter(layer.bias)
    if layer.bias is None and can_take_bias(recorder, path, name):
        bias_name = f"{path}.bias" if path else "bias"
    recorder.add_step(
        Reader(inputs, outputs, layer.groups, layer.uniform, name, layer.axes[0], value, bias, bias_name, place,
               layer.kind, layer.macs)
    )  # fmt: skip
    return outputs


def unknown_bias(outputs: int) -> Value:
    """The bias of a layer that computes it from its input."""
    return lambda: torch.full((outputs,), torch.nan, device="cpu")


def join_weight(
    recorder: Recorder, inputs: Labels, outputs: Labels, layer: Layer, depthwise: bool, here: Place
) -> None:
    """Cut the weight's axes together with the channels that the layer reads and writes."""
    in_axis, out_axis = layer.axes
    plain = layer.groups == 1 and not depthwise
    if plain or out_axis == 0:
        cut_weight(recorder, layer, out_axis, outputs, here)
    if plain or in_axis == 0:
        cut_weight(recorder, layer, in_axis, inputs, here)
    if not plain and not depthwise and layer.name is None:
        recorder.pin(np.concatenate([inputs, outputs]), Reason(Kind.GROUPED_WEIGHT, here))


def cut_weight(recorder: Recorder, layer: Layer, axis: int, channels: Labels, here: Place) -> None:
    """Cut one axis of a weight together with channels `(C,)`; the other axes of a computed weight are pinned."""
    if layer.name is not None:
        recorder.cut(layer.name, axis, channels, Reason(Kind.NO_CHANNELS, here))
        return
    count = layer.weight.shape[axis]
    labels = np.zeros(count, dtype=np.int64)
    for face in recorder.tag(layer.weight).faces:
        axes = varying_axes(face)
        if axes == (axis,):
            labels = face.reshape(-1)
        elif any(a > 1 for a in axes) or len(axes) > 1:
            recorder.pin(face, Reason(Kind.COMPUTED_WEIGHT, here))
    if not labels.any() and is_repeated(layer.value(), axis):
        # A kernel given to as many channels as come: whether it follows a narrower width, the next trace tells.
        return
    recorder.join(channels, labels, Reason(Kind.FOREIGN_WEIGHT, here))


def is_repeated(weight: torch.Tensor, axis: int) -> bool:
    """Whether a computed weight is the same at every position of an axis."""
    return weight.stride(axis) == 0 or bool((weight == weight.narrow(axis, 0, 1)).all())


def weight_norm(recorder: Recorder, call: Call) -> None:
    """g · v / |v|: filters go with their scales; what a filter reads stays, since its norm depends on it."""
    direction, scale, out = call.tensors[0], call.tensors[1], call.outputs[0]
    axis = call.arg(2, "dim", 0) % out.ndim
    where = recorder.because(Kind.WEIGHT_NORM, call)
    filters = [face for face in recorder.tag(direction).faces if varying_axes(face) == (axis,)]
    scales = [face for face in recorder.tag(scale).faces if varying_axes(face) == (axis,)]
    if len(filters) != 1 or len(scales) != 1:
        pin_both(recorder, direction, scale, where)
        return
    others = [face for face in recorder.tag(direction).faces if face is not filters[0]]
    for face in others:
        recorder.pin(face, where)
    recorder.set(out, Tag((recorder.pointwise([*filters, *scales], unknown_constant, reason=where), *others)))


def can_take_bias(recorder: Recorder, path: str, name: str | None) -> bool:
    """Whether the layer is a module of torch whose missing bias can be given to it, or which adds its own later.

    The latter is what a linear layer does with tokens `(N, T, C)` that do not lie behind each other.
    """
    module = recorder.modules.get(path)
    if not isinstance(module, STANDARD) or recorder.module != path:
        return False
    kind: type = type(module)
    free = reads_bias(kind) if module.bias is None else getattr(kind, "forward", None) is torch.nn.Linear.forward
    return free and (name is None or name.rpartition(".")[2] == "weight")


@functools.cache
def reads_bias(kind: type) -> bool:
    """Whether the forward of a layer reads its bias, or leaves that to a class that it inherits from."""
    for each in kind.__mro__:
        code = getattr(vars(each).get("forward"), "__code__", None)
        names = () if code is None else code.co_names
        if "bias" in names:
            return True
        if "forward" in vars(each) and "forward" not in names:
            return False
    return False


def linear(recorder: Recorder, call: Call) -> None:
    """addmm, mm: a linear layer where the second factor is a weight, else a product of activations."""
    bias, x, weight = (None, *call.args[:2]) if call.name == "mm" else call.args[:3]
    scaled = call.kwargs.get("alpha", 1) != 1 or call.kwargs.get("beta", 1) != 1
    tag = recorder.tag(weight)
    base, axes = weight, (0, 1)
    if tag.parameter is not None:
        base, axes = recorder.meta[tag.parameter], (tag.axes[0], tag.axes[1])
    value, count = recorder.value(base), weight.shape[1]
    if value is None and is_whole_layer(recorder, count):
        pin_both(recorder, x, weight, recorder.because(Kind.DATA_WEIGHT, call))
        value = unknown_weight(base)
    if value is None or recorder.value(x) is not None or scaled:
        matmul(recorder, call)
        return
    macs = math.prod(x.shape) * count
    layer = Layer(base, recorder.parameter(base), value, bias, axes, count, 1, True, macs, "linear")
    inputs = recorder.channels(x, 1, recorder.because(Kind.LINEAR, call))
    outputs = mix(recorder, call, inputs, x.shape[1], layer)
    recorder.set(call.outputs[0], Tag((along(outputs, 1, 2),)))


def matmul(recorder: Recorder, call: Call) -> None:
    """A product of two activations: it adds up along one axis, and the others go on."""
    left, right = call.tensors[-2:]
    out = call.outputs[0]
    where = recorder.because(Kind.MULTIPLIED, call)
    for extra in call.tensors[:-2]:
        recorder.pin_tensor(extra, where)
    tags = recorder.tag(left), recorder.tag(right)
    if left.ndim == right.ndim == out.ndim and all(len(tag.faces) == 1 for tag in tags):
        first, second = tags[0].faces[0], np.swapaxes(tags[1].faces[0], -1, -2)
        if first.shape[-1] > 1 and second.shape[-1] > 1 and first.shape[-2] == second.shape[-2] == 1:
            recorder.set(out, Tag((contract_channels(recorder, first, second, where),)))
            return
    faces = []
    for tensor, free, other in ((left, left.ndim - 2, tags[1]), (right, right.ndim - 1, tags[0])):
        for face in recorder.tag(tensor).faces:
            if survives_matmul(face, free, other) and tensor.ndim == out.ndim and len(recorder.tag(tensor).faces) == 1:
                faces.append(propagate_through_matmul(recorder, face, other, where))
            else:
                recorder.pin(face, where)
    recorder.set(out, Tag(tuple(faces)))


def contract_channels(recorder: Recorder, left: Labels, right: Labels, where: Reason) -> Labels:
    """Labels of a product that adds up over channels: pairs of them, of which one is zero, may go."""
    pairs = recorder.pointwise([left, right], product([None, None]), reason=where)
    return recorder.summed(pairs.reshape(-1, pairs.shape[-1]), where).reshape(*pairs.shape[:-1], 1)


def survives_matmul(face: Labels, free: int, other: Tag) -> bool:
    """Whether channels go on through a product: they are on its free axis, or on that of each matrix of a batch."""
    axes = varying_axes(face)
    batch_only = all(max(varying_axes(each), default=0) < each.ndim - 2 for each in other.faces)
    within = all(axis == free or axis < face.ndim - 2 for axis in axes)
    return axes == (free,) or (free in axes and within and batch_only and len(other.faces) < 2)


def propagate_through_matmul(recorder: Recorder, face: Labels, other: Tag, where: Reason) -> Labels:
    """Channels on the free axis of a product, which only zeros leave constant, beside those of a batch."""
    if len(varying_axes(face)) == 1 or not other.faces:
        return recorder.pointwise([face], zero_only, reason=where)
    recorder.pin(other.faces[0], where)
    return recorder.pointwise([face, other.faces[0]], zero_only, reason=where, joined=1)


LAYER_OPS = merge_rows(
    {
        "convolution": OpSpec(
            convolution, shape=meta_shapes.convolution, numbers=convolution_settings, width_free=True
        ),
        "_convolution": OpSpec(convolution),
        "addmm": OpSpec(linear, shape=meta_shapes.addmm, width_free=True, layout_dependent=True),
        "mm": OpSpec(linear, shape=meta_shapes.mm, width_free=True, layout_dependent=True),
        "bmm": OpSpec(matmul, layout_dependent=True),
        "_weight_norm_interface": OpSpec(weight_norm),
    },
    same_row(OpSpec(matmul), "baddbmm", "mv"),
)
