"""Elementwise ops: each channel of the output comes from the same channel of the operands."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from slimnet.graph.channel_graph import Activation, Constants
from slimnet.graph.labels import Labels, align, common_shape, varying_axes
from slimnet.graph.reasons import Kind, Reason
from slimnet.tracing.constant_rules import unknown_constant, zero_only
from slimnet.tracing.meta_shapes import broadcast, same_shape
from slimnet.tracing.op_call import Call, OpSpec
from slimnet.tracing.op_rows import merge_rows, same_row
from slimnet.tracing.recorder import Constant, Recorder
from slimnet.tracing.tensor_tags import Tag

ConstantRule = Callable[[Call, list[Constants | None]], Constant]
"""Gives the constant of an op, from the call and the numbers that some of its tensors are known to be."""


def elementwise(recorder: Recorder, call: Call) -> None:
    """Any elementwise op; its constant is the op itself applied to the operands' constants."""
    combine(recorder, call, apply_to_constants)


def activation(recorder: Recorder, call: Call) -> None:
    """An elementwise op behind which channels can be dead by activation."""
    elementwise(recorder, call)
    faces = recorder.tag(call.outputs[0]).faces
    note_activation(recorder, call, faces[0] if len(faces) == 1 else None)


def multiply(recorder: Recorder, call: Call) -> None:
    """x · y, where 0 times anything is 0; y may be a number in the code."""
    given = [value for value in call.args if isinstance(value, int | float)]
    numbers = [torch.tensor(value, dtype=torch.float64, device="cpu") for value in given]
    if call.outputs[0].is_complex():
        numbers.append(torch.tensor(torch.nan, device="cpu"))
    combine(recorder, call, lambda _call, scalars: product([*scalars, *numbers]))


def divide(recorder: Recorder, call: Call) -> None:
    """x / y, where 0 divided by anything is 0."""

    def rule(call: Call, scalars: list[Constants | None]) -> Constant:
        quotient = apply_to_constants(call, scalars)
        if scalars[0] is not None:
            return quotient

        def constant(values: Sequence[Constants]) -> Constants:
            by_zero = values[1] == 0 if len(values) > 1 else torch.zeros_like(values[0], dtype=torch.bool)
            return torch.where((values[0] == 0) & ~by_zero, 0.0, quotient(values))

        return constant

    combine(recorder, call, rule)


def log_sigmoid(recorder: Recorder, call: Call) -> None:
    """log_sigmoid_forward, which returns a reserve as well."""
    combine(recorder, call, lambda _call, _scalars: lambda values: functional.logsigmoid(values[0]))


def combine(recorder: Recorder, call: Call, rule: ConstantRule) -> None:
    """Record an elementwise op of one or several tensors, with `rule` giving its constant."""
    out = call.outputs[0]
    tags = [recorder.tag(tensor) for tensor in call.tensors]
    faces = [tag.faces[0] for tag in tags if len(tag.faces) == 1]
    if len(faces) == len(tags) and (len(tags) == 1 or are_alike(faces)):
        labels = recorder.pointwise(faces, rule(call, [None] * len(tags)), reason=fixed_size(recorder, call))
        recorder.set(out, Tag((labels,)))
    elif not any(tag.faces for tag in tags):
        recorder.set(out, Tag(blank=all(tag.blank for tag in tags)))
    elif any(len(tag.faces) > 1 for tag in tags):
        combine_weights(recorder, call, tags)
    else:
        recorder.set(out, Tag((combine_unlike(recorder, call, tags, rule),)))


def combine_unlike(recorder: Recorder, call: Call, tags: list[Tag], rule: ConstantRule) -> Labels:
    """The output's labels of an op some of whose tensors have channels, at different places or not all of them."""
    ndim = call.outputs[0].ndim
    shape = common_shape([align(tag.faces[0], ndim) for tag in tags if tag.faces])
    scalars = [
        None if tag.faces else known_scalar(recorder, tensor) for tensor, tag in zip(call.tensors, tags, strict=True)
    ]
    arrays = [
        operand_labels(recorder, call, tensor, tag, shape)
        for tensor, tag, scalar in zip(call.tensors, tags, scalars, strict=True)
        if scalar is None
    ]
    several = any(array.size > 1 for array in arrays)
    joined = [array for array in arrays if belongs_to_channels(array, several)]
    rest = [array for array in arrays if not belongs_to_channels(array, several)]
    for array in rest:
        recorder.pin(array, recorder.because(Kind.ONE_FOR_MANY, call))
    order = [id(array) for array in joined + rest]
    constant = reordered(rule(call, scalars), [order.index(id(array)) for array in arrays])
    return recorder.pointwise(joined + rest, constant, reason=fixed_size(recorder, call), joined=len(joined))


def operand_labels(recorder: Recorder, call: Call, tensor: torch.Tensor, tag: Tag, shape: Sequence[int]) -> Labels:
    """The labels of one operand, with as many axes as the output has; 0 where it has no channels."""
    ndim = call.outputs[0].ndim
    face = align(tag.faces[0], ndim) if tag.faces else np.zeros((1,) * ndim, dtype=np.int64)
    return check_sizes(recorder, call, tensor, tag, face, shape)


def belongs_to_channels(array: Labels, several: bool) -> bool:
    """Whether an operand is cut together with the output, of which another operand may have `several` channels.

    One channel that scales many is not cut with each of them; it only has to stay.
    """
    return array.size > 1 or (not several and bool(array.flat[0]))


def are_alike(faces: Sequence[Labels]) -> bool:
    """Whether all faces have the same channels at the same places, more than one."""
    return bool(faces) and faces[0].size > 1 and all(face.shape == faces[0].shape for face in faces)


def reordered(constant: Constant, positions: list[int]) -> Constant:
    """Give a constant its operands in the op's own order."""
    if positions == list(range(len(positions))):
        return constant
    return lambda values: constant([values[p] for p in positions])


def fixed_size(recorder: Recorder, call: Call) -> Reason:
    """The reason for pins of an op that meets a tensor without channels."""
    return recorder.because(Kind.FIXED_SIZE, call)


def check_sizes(
    recorder: Recorder, call: Call, tensor: torch.Tensor, tag: Tag, face: Labels, shape: Sequence[int]
) -> Labels:
    """The operand's labels; where it is long on a labelled axis without labels of its own, they become 0."""
    sizes = (1,) * (len(shape) - tensor.ndim) + tuple(tensor.shape)
    fixed = [a for a, n in enumerate(shape) if n > 1 and face.shape[a] == 1 and sizes[a] > 1]
    # What is expanded follows the width, or does not fit any more.
    fixed = [a for a in fixed if tensor.stride(a - len(shape)) or not tag.faces]
    if not fixed or tag.blank:
        return face
    if tag.faces:
        recorder.pin(face, fixed_size(recorder, call))
    return np.zeros(tuple(n if a in fixed else 1 for a, n in enumerate(shape)), dtype=np.int64)


def known_scalar(recorder: Recorder, tensor: torch.Tensor) -> Constants | None:
    """The value of a tensor that is one known number, or is filled with one."""
    value = recorder.value(tensor)
    if value is None or tensor.is_complex() or (tensor.numel() != 1 and not recorder.tag(tensor).blank):
        return None
    real = value().detach()
    first = real[(slice(1),) * real.ndim]
    is_one_number = first.numel() and (not any(real.stride()) or bool((real == first).all()))
    return first.reshape(1).to("cpu", torch.float64) if is_one_number else None


def apply_to_constants(call: Call, scalars: list[Constants | None]) -> Constant:
    """The op applied to constants: NaN wherever one of them is unknown."""

    def constant(values: Sequence[Constants]) -> Constants:
        unknown = torch.isnan(values[0])
        for other in values[1:]:
            unknown |= torch.isnan(other)
        if unknown.numpy().all():
            return torch.full_like(values[0], torch.nan)
        try:
            result = apply_op(call, scalars, values)
        except RuntimeError:  # an op that takes no vectors of constants in the place of its tensors
            return torch.full_like(values[0], torch.nan)
        if result.is_complex():
            result = torch.where(result == 0, 0.0, torch.nan)
        return torch.where(unknown, torch.nan, result.to(torch.float64))

    return constant


def apply_op(call: Call, scalars: list[Constants | None], values: Sequence[Constants]) -> torch.Tensor:
    """Call the op with every tensor argument replaced by its constant; masks and integers are given as such."""
    remaining = iter(values)
    constants = [next(remaining) if scalar is None else scalar for scalar in scalars]
    pairs = zip(constants, call.tensors, strict=True)
    typed = [value if tensor.is_floating_point() else value.to(tensor.dtype) for value, tensor in pairs]
    return call.run(typed, "dtype", "device")


def product(scalars: list[Constants | None]) -> Constant:
    """Multiply constants; a zero decides whatever the others are."""
    fixed = [scalar for scalar in scalars if scalar is not None]

    def constant(values: Sequence[Constants]) -> Constants:
        result, zero = values[0], values[0] == 0
        for factor in (*values[1:], *fixed):
            result, zero = result * factor, zero | (factor == 0)
        return torch.where(zero, 0.0, result)

    return constant


def combine_weights(recorder: Recorder, call: Call, tags: list[Tag]) -> None:
    """An elementwise op where one operand is a weight: its faces join those of the others that share an axis."""
    out = call.outputs[0]
    where = fixed_size(recorder, call)
    found: dict[tuple[int, ...], list[Labels]] = {}
    sizes = [(1,) * (out.ndim - t.ndim) + tuple(t.shape) for t in call.tensors]
    for tag in tags:
        for face in (align(face, out.ndim) for face in tag.faces):
            found.setdefault(varying_axes(face), []).append(face)
    for lone in found.pop((), []):
        # It meets all that stands along the other axes.
        recorder.pin(lone, recorder.because(Kind.ONE_FOR_MANY, call))
    result = []
    for axes, faces in found.items():
        lacking = [tag for tag, size in zip(tags, sizes, strict=True) if lacks_labels(tag, size, axes)]
        if lacking:
            for face in faces:
                recorder.pin(face, where)
            if mixed(tags):
                # Positions, such as a position embedding has beside its channels: they stay, and are none to follow.
                continue
        result.append(recorder.pointwise(faces, unknown_constant, reason=where))
    recorder.set(out, Tag(tuple(result)))


def lacks_labels(tag: Tag, size: Sequence[int], axes: tuple[int, ...]) -> bool:
    """Whether a tensor of this size is long on some axes, where it is not filled with one value nor has labels."""
    return (
        not tag.blank
        and any(size[axis] > 1 for axis in axes)
        and all(varying_axes(align(face, len(size))) != axes for face in tag.faces)
    )


def mixed(tags: list[Tag]) -> bool:
    """Whether the op mixes weights with values that depend on the input."""
    return any(tag.faces and tag.value is None for tag in tags)


def note_activation(recorder: Recorder, call: Call, labels: Labels | None) -> None:
    """Remember activation outputs with one channel axis, where channels can be dead by activation."""
    out = call.outputs[0]
    if out.ndim < 2:
        return
    times = recorder.activation_calls[recorder.module, call.name]
    recorder.activation_calls[recorder.module, call.name] += 1
    if labels is not None and varying_axes(labels) == (1,) and labels.size == out.shape[1]:
        recorder.activations.append(Activation(labels.reshape(-1), (recorder.module, call.name, times)))


def opaque_elementwise(recorder: Recorder, call: Call) -> None:
    """Keeps its operand's channels but makes their values unknown (dropout in training, softmax over space)."""
    combine(recorder, call, lambda _call, _scalars: unknown_constant)


def identity(recorder: Recorder, call: Call) -> None:
    """The same values in a tensor of the same shape."""
    recorder.set(call.outputs[0], recorder.tag(call.tensors[0])._replace(value=None))


def cast(recorder: Recorder, call: Call) -> None:
    """Another dtype, device or layout: what an integer, a mask or a short float cannot hold is lost."""
    x, out = call.tensors[0], call.outputs[0]
    tag = recorder.tag(x)
    if out.dtype == x.dtype or tag.parameter is not None or len(tag.faces) != 1:
        identity(recorder, call)
        return

    def constant(values: Sequence[Constants]) -> Constants:
        if out.is_complex() or x.is_complex():
            return zero_only(values)
        held = values[0].to(out.dtype).to(torch.float64)
        return torch.where(torch.isnan(values[0]), torch.nan, held)

    recorder.set(out, Tag((recorder.pointwise(tag.faces, constant, reason=fixed_size(recorder, call)),)))


ELEMENTWISE = OpSpec(elementwise, broadcasts=True, width_free=True)
"""The row of an op that computes each element of its output from those at the same place of its tensors."""

ACTIVATION = ELEMENTWISE._replace(handler=activation, activation=True)
OPAQUE = ELEMENTWISE._replace(handler=opaque_elementwise)
IDENTITY = OpSpec(identity, width_free=True, layout_dependent=True)

ELEMENTWISE_OPS = merge_rows(
    {
        "relu": ACTIVATION._replace(shape=same_shape, flat_at_zero=()),
        "hardtanh": ACTIVATION._replace(shape=same_shape, flat_at_zero=(0.0,)),
        "threshold": ACTIVATION._replace(flat_at_zero=(0.0, 0.0)),
    },
    same_row(ACTIVATION._replace(shape=same_shape), "hardswish", "silu", "gelu", "mish", "leaky_relu", "elu"),
    same_row(ACTIVATION, "celu", "selu", "softplus", "_prelu_kernel"),
    same_row(ELEMENTWISE._replace(shape=same_shape), "sigmoid", "hardsigmoid", "tanh", "exp", "sqrt", "rsqrt", "neg"),
    same_row(ELEMENTWISE._replace(shape=broadcast), "add", "sub"),
    {
        "mul": ELEMENTWISE._replace(handler=multiply, shape=broadcast),
        "div": ELEMENTWISE._replace(handler=divide, shape=broadcast),
        "log_sigmoid_forward": ELEMENTWISE._replace(handler=log_sigmoid),
        "native_dropout": OPAQUE,
        "bernoulli": OPAQUE,
        "_to_copy": IDENTITY._replace(handler=cast),
    },
    same_row(IDENTITY, "clone", "alias", "detach", "contiguous", "lift_fresh", "lift_fresh_copy"),
    same_row(
        ELEMENTWISE,
        "softshrink", "hardshrink", "erf", "expm1", "log", "log1p", "reciprocal", "abs", "sign", "sgn", "sin", "cos",
        "tan", "atan", "floor", "ceil", "round", "trunc", "clamp", "clamp_min", "clamp_max", "pow", "square", "rsub",
        "maximum", "minimum", "where", "lerp", "addcmul", "addcdiv", "prelu", "eq", "ne", "gt", "ge", "lt", "le",
        "logical_and", "logical_or", "logical_not", "remainder", "fmod", "nan_to_num", "masked_fill", "atan2", "frac",
        "sinh", "cosh", "log2", "log10", "exp2", "erfc", "logaddexp", "floor_divide", "isnan", "isinf", "bitwise_and",
        "bitwise_or", "bitwise_not", "xlogy", "heaviside", "hypot", "special_xlog1py", "asinh", "acosh", "atanh",
        "asin", "acos", "sinc", "copysign", "isfinite", "deg2rad", "rad2deg", "logaddexp2", "fmax", "fmin", "positive",
        "bitwise_xor", "logical_xor", "erfinv", "special_erfcx",
    ),
)  # fmt: skip
